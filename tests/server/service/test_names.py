"""Service names: all files of a service use the same ones."""

import re
from pathlib import PurePosixPath

import pytest

from claude_proxy.config.settings import TcpListen
from claude_proxy.server.service.names import names_of
from claude_proxy.server.service.plan import Firewall, Scope, ServiceKind, ServicePlan
from claude_proxy.server.service.systemd import (
    default_listener,
    files_of,
)
from tests.server.service import plans
from tests.server.service.plans import rendered, service_of


@pytest.mark.parametrize("plan", plans.ALL.values(), ids=plans.ALL)
def test_every_file_says_the_same_names(plan: ServicePlan) -> None:
    names, files = names_of(plan.kind), rendered(plan)

    own = {names.service, names.socket, f"{names.name}.conf", "egress.nft"}
    assert set(files) <= own
    text = "\n".join(files.values())
    assert _places_in(text) <= _places_of(plan), "a path that the table of names does not have"
    assert set(re.findall(r"[\w@-]+\.(?:service|socket)\b", text)) <= _units_of(plan)
    if plan.scope is Scope.SYSTEM:
        found = service_of(plan)
        assert found["User"] == found["Group"] == [names.user]
        assert files[f"{names.name}.conf"].startswith(f"u {names.user} - ")
        for directory in ("ConfigurationDirectory", "StateDirectory", "RuntimeDirectory"):
            assert found[directory] == [names.name]
        assert names.state == f"/var/lib/{names.name}"
        assert names.configuration == f"/etc/{names.name}"
        assert names.runtime == f"/run/{names.name}"
    if plan.firewall is not None:
        assert f'skuid "{names.user}"' in files["egress.nft"]
        assert f"table inet {names.table} {{" in files["egress.nft"]
        assert f'"{names.log_prefix}"' in files["egress.nft"]


def _places_in(text: str) -> set[str]:
    found = re.findall(r"/(?:etc|run|var/lib)/[\w./-]*claude-proxy[\w./-]*", text)
    return {str(PurePosixPath(path.rstrip("."))) for path in found}


def _places_of(plan: ServicePlan) -> set[str]:
    names = names_of(plan.kind)
    sockets = {f"{names.runtime}/p.sock"} if plan.listen else set()
    return sockets | {
        names.configuration,
        names.allowlist,
        names.state,
        names.runtime,
        names.firewall,
    }


def _units_of(plan: ServicePlan) -> set[str]:
    names = names_of(plan.kind)
    return {names.service, names.socket, "nftables.service"}


def test_both_kinds_can_be_on_one_machine() -> None:
    one, other = (
        {unit.path for unit in files_of(plans.activated(plan, firewall=Firewall()))}
        for plan in (plans.SERVE, plans.GATEWAY)
    )

    assert one & other == set()
    assert names_of("serve").table != names_of("gateway").table
    assert default_listener(ServiceKind.SERVE) != default_listener(ServiceKind.GATEWAY)
    assert default_listener(ServiceKind.GATEWAY) == TcpListen("127.0.0.1", 9000)
