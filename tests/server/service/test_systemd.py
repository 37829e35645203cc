"""All files of a service use the same names, are as strict as possible, and contain no key."""

import re
from dataclasses import replace

import pytest

from claude_proxy.config.settings import DEFAULT_PORT
from claude_proxy.server.service.plan import Firewall, Scope, ServiceKind, ServicePlan
from claude_proxy.server.service.systemd import (
    default_listener,
    files_of,
    firewall_of,
    listening_words,
    pod_firewall_of,
)
from tests.server.service import plans
from tests.server.service.plans import rendered, service_of, values_of

# A36, and what goes beyond it.
HARDENING = {
    "NoNewPrivileges": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectControlGroups": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
    "Restart": "on-failure",
    "CapabilityBoundingSet": "",
    "LimitCORE": "0",
    "UMask": "0077",
    "ProtectProc": "invisible",
}


@pytest.mark.parametrize("plan", plans.ALL.values(), ids=plans.ALL)
def test_no_name_is_left_to_be_filled_in(plan: ServicePlan) -> None:
    for text in rendered(plan).values():
        assert not re.search(r"\$(?!MAINPID\b)", text), text
        assert text.endswith("\n")
        assert "=\n\n" not in text
        assert all(len(line) <= 200 for line in text.splitlines())


@pytest.mark.parametrize("plan", plans.ALL.values(), ids=plans.ALL)
def test_a_unit_is_as_tight_as_its_manager_can_make_it(plan: ServicePlan) -> None:
    found = service_of(plan)

    for name, value in HARDENING.items():
        if plan.scope is Scope.USER and name == "ProtectHome":
            assert found[name] == ["read-only"]
        else:
            assert found[name] == [value], name
    # Without a user namespace a user's manager ends such a unit with 218/CAPABILITIES.
    assert ("PrivateUsers" in found) is (plan.scope is Scope.USER)
    assert found["SystemCallFilter"] == ["@system-service @network-io", "~@privileged @resources"]


def test_memory_that_is_written_is_not_run_where_no_command_needs_it() -> None:
    assert service_of(plans.GATEWAY)["MemoryDenyWriteExecute"] == ["yes"]
    assert "MemoryDenyWriteExecute" not in service_of(plans.SERVE)


@pytest.mark.parametrize("plan", plans.ALL.values(), ids=plans.ALL)
def test_a_key_is_passed_as_a_credential_and_never_in_the_environment(plan: ServicePlan) -> None:
    found = service_of(plan)

    assert not {"Environment", "EnvironmentFile", "PassEnvironment"} & set(found)
    if plan.key_file is not None:
        assert found["LoadCredential"] == [f"anthropic:{plan.key_file}"]
        assert "--key-systemd anthropic" in found["ExecStart"][0]


@pytest.mark.parametrize("plan", plans.ALL.values(), ids=plans.ALL)
def test_no_line_of_a_file_can_be_taken_for_the_name_of_the_next(plan: ServicePlan) -> None:
    # `print` has each below a line of "# " and its path.
    for text in rendered(plan).values():
        assert "\n# /" not in text


@pytest.mark.parametrize("plan", plans.ALL.values(), ids=plans.ALL)
def test_systemd_is_told_when_it_is_ready_and_how_to_reload(plan: ServicePlan) -> None:
    found = service_of(plan)

    assert found["Type"] == ["notify"]
    assert found["ExecReload"][-1] == "kill -HUP $MAINPID"
    assert float(found["TimeoutStopSec"][0]) > plan.grace_s


@pytest.mark.parametrize("plan", plans.ALL.values(), ids=plans.ALL)
def test_the_limits_fit_what_is_asked_of_it(plan: ServicePlan) -> None:
    found = service_of(plan)

    assert int(found["LimitNOFILE"][0]) > 2 * plan.connections
    assert found["CPUQuota"] == [f"{100 * plan.workers}%"]
    assert found["MemoryMax"] == [f"{1024 * plan.workers}M"]


def test_a_socket_unit_listens_for_the_service() -> None:
    plan = plans.activated(plans.SERVE)

    socket = values_of(rendered(plan)["claude-proxy.socket"])
    service = service_of(plan)
    assert socket["ListenStream"] == ["127.0.0.1:9051", "[::1]:9051", "/run/claude-proxy/p.sock"]
    assert socket["SocketUser"] == ["claude-proxy"]
    assert socket["SocketMode"] == ["0666"]  # the proxy itself asks who connects
    assert "--listen" not in service["ExecStart"][0]
    assert service["Requires"] == ["claude-proxy.socket"]
    assert service["Also"] == ["claude-proxy.socket"]
    assert service["RuntimeDirectoryPreserve"] == ["yes"]  # the socket's file lies in it
    assert "AF_UNIX" in service["RestrictAddressFamilies"][0]


def test_a_socket_for_nobody_else_is_its_owners_alone() -> None:
    plan = replace(plans.activated(plans.SERVE), shared=False, listen=())

    socket = values_of(rendered(plan)["claude-proxy.socket"])

    assert socket["SocketMode"] == ["0600"]
    assert socket["ListenStream"] == [f"127.0.0.1:{DEFAULT_PORT}"]


def test_the_gateways_sockets_are_named_so_that_it_knows_them() -> None:
    text = rendered(plans.activated(plans.GATEWAY))["claude-proxy-gateway.socket"]

    assert values_of(text)["FileDescriptorName"] == ["gateway"]


@pytest.mark.parametrize("kind", ServiceKind)
def test_a_command_is_told_in_its_own_words_where_to_listen(kind: ServiceKind) -> None:
    places = plans.activated(plans.SERVE).listen[::2]

    words = listening_words(kind, places)

    if kind is ServiceKind.SERVE:
        assert words == ("--listen=127.0.0.1:9051", "--listen=unix:/run/claude-proxy/p.sock")
    else:
        assert words == ("--host=127.0.0.1", "--port=9051", "--uds=/run/claude-proxy/p.sock")
    assert default_listener(kind).host == "127.0.0.1"


def test_the_packet_filter_looks_at_the_service_alone_and_drops_the_rest() -> None:
    text = firewall_of(plans.SERVE, plans.WALL)

    lines = [line.strip() for line in text.splitlines()]
    assert 'meta skuid "claude-proxy" goto service' in lines
    chain = lines[lines.index("chain service {") + 1 :]
    assert chain[0] == 'oif "lo" accept'
    assert "tcp dport { 80, 443 } accept" in chain
    assert 'log prefix "claude-proxy-denied: " flags all counter drop' in chain
    assert "type ipv4_addr; elements = { 192.0.2.53 }" in lines
    assert "type ipv6_addr; elements = { 2001:db8::53 }" in lines
    assert not any("established" in line for line in lines)


def test_any_name_server_is_allowed_where_none_is_named() -> None:
    text = firewall_of(plans.SERVE, Firewall())

    assert "        meta l4proto { tcp, udp } th dport 53 accept\n" in text
    assert "set " not in text


def test_clients_on_other_machines_are_answered() -> None:
    text = firewall_of(replace(plans.SERVE, remote=True), Firewall())

    assert "ct state established ct direction reply accept" in text


def test_the_rules_are_there_before_the_service_sends_anything() -> None:
    found = service_of(plans.ALL["behind a packet filter"])

    assert found["ExecStartPre"] == ["+nft -f /etc/claude-proxy/egress.nft"]
    assert found["ExecReload"][0] == "+nft -f /etc/claude-proxy/egress.nft"
    assert found["PartOf"] == ["nftables.service"]


def test_an_odd_path_is_spelled_for_systemd() -> None:
    plan = replace(plans.SERVE, program=("/home/a b/%h/bin/claude-proxy",), key_file="/k %n")

    found = service_of(plan)

    assert found["ExecStart"] == [':"/home/a b/%%h/bin/claude-proxy" serve']
    assert found["LoadCredential"] == ["anthropic:/k %%n"]


def test_a_word_that_would_end_its_line_stops_it() -> None:
    with pytest.raises(ValueError, match="a unit file cannot contain"):
        files_of(replace(plans.SERVE, words=("--allowlist=/a\nUser=root",)))


def test_in_a_shared_namespace_only_the_proxys_user_may_send() -> None:
    text = pod_firewall_of(Firewall(frozenset({443, 8443})), user=9051, table="a_pod")

    assert "table inet a_pod {" in text
    assert "meta skuid 9051 goto service" in text
    assert "tcp dport { 443, 8443 } accept" in text
    assert text.count("policy drop") == 3
