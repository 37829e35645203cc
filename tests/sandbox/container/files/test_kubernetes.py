"""The manifests: nothing starts before the wall was tried, and everything is confined."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from claude_proxy.config.allowlist import loader
from claude_proxy.sandbox.container.files.kubernetes import render
from claude_proxy.sandbox.container.files.model import FileKind, FileRequest, PodLayout

LAYOUTS = tuple(PodLayout)


def texts(layout: PodLayout, name: str = "claude") -> dict[str, str]:
    request = FileRequest(FileKind.KUBERNETES, name, "docker.io/x/agent:1", pods=layout)
    return {str(file.path): file.text for file in render(request).files}


def resources(layout: PodLayout, kind: str, name: str = "claude") -> list[dict[str, Any]]:
    return [
        document
        for path, text in texts(layout, name).items()
        if path.endswith(".yaml") and not path.endswith("allowlist.yaml")
        for document in yaml.safe_load_all(text)
        if document["kind"] == kind
    ]


def pods(layout: PodLayout) -> dict[str, dict[str, Any]]:
    return {
        found["metadata"]["labels"]["app.kubernetes.io/component"]: found["spec"]["template"][
            "spec"
        ]
        for found in resources(layout, "Deployment")
    }


def containers(layout: PodLayout) -> Iterator[dict[str, Any]]:
    for pod in pods(layout).values():
        yield from pod["initContainers"]
        yield from pod["containers"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_container_is_confined(layout: PodLayout) -> None:
    """As the restricted Pod Security Standard has it; only the rules need NET_ADMIN and root."""
    for container in containers(layout):
        found = container["securityContext"]
        is_of_rules = container["name"] == "rules"
        assert found["allowPrivilegeEscalation"] is False
        assert found["readOnlyRootFilesystem"] is True
        assert found["runAsNonRoot"] is not is_of_rules
        added = {"add": ["NET_ADMIN"]} if is_of_rules else {}
        assert found["capabilities"] == {"drop": ["ALL"], **added}
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_pod_has_a_token_or_a_namespace_of_the_node(layout: PodLayout) -> None:
    for pod in pods(layout).values():
        assert pod["automountServiceAccountToken"] is False
        assert not any(pod[name] for name in ("hostNetwork", "hostPID", "hostIPC"))
        assert pod["shareProcessNamespace"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_last_thing_before_the_agent_is_the_check_as_the_agents_user(
    layout: PodLayout,
) -> None:
    agent = pods(layout)["agent"]
    check = agent["initContainers"][-1]

    assert check["args"][:2] == ["doctor", "--attack-here"]
    assert "restartPolicy" not in check
    user = agent["containers"][0]["securityContext"]["runAsUser"]
    assert check["securityContext"]["runAsUser"] == user


def test_in_one_pod_the_rules_come_first_and_the_proxy_has_their_user() -> None:
    agent = pods(PodLayout.ONE)["agent"]

    rules, _, sidecar, _ = agent["initContainers"]
    text = texts(PodLayout.ONE)["kubernetes/egress.nft"]

    assert (rules["name"], sidecar["restartPolicy"]) == ("rules", "Always")
    assert f"meta skuid {sidecar['securityContext']['runAsUser']} goto service" in text
    others = [one["securityContext"]["runAsUser"] for one in agent["containers"]]
    assert sidecar["securityContext"]["runAsUser"] not in others


def test_with_two_pods_the_agent_reaches_one_port_of_the_proxy_and_no_name_server() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"] for one in resources(PodLayout.TWO, "NetworkPolicy")
    }
    agent, proxy = policies["claude"], policies["claude-egress"]

    (way,) = agent["egress"]
    assert way["ports"] == [{"protocol": "TCP", "port": 9051}]
    assert way["to"] == [{"podSelector": proxy["podSelector"]}]
    assert agent["ingress"] == []
    assert policies["claude-deny"]["podSelector"] == {}
    assert all(set(one["policyTypes"]) == {"Ingress", "Egress"} for one in policies.values())
    pod = pods(PodLayout.TWO)["agent"]
    assert (pod["dnsPolicy"], pod["dnsConfig"]["nameservers"]) == ("None", ["127.0.0.1"])


def test_the_canary_listens_before_the_proxy_is_ready_and_no_policy_lets_anybody_there() -> None:
    (proxy,) = pods(PodLayout.TWO)["proxy"]["containers"]
    check = pods(PodLayout.TWO)["agent"]["initContainers"][-1]

    assert proxy["readinessProbe"]["tcpSocket"] == {"port": 9052}
    assert "--listen=0.0.0.0:9052" in proxy["args"]
    assert check["args"][2] == "--canary=$(CLAUDE_EGRESS_SERVICE_HOST):9052"
    for policy in resources(PodLayout.TWO, "NetworkPolicy"):
        ways = [*policy["spec"]["ingress"], *policy["spec"]["egress"]]
        assert not [way for way in ways if {"protocol": "TCP", "port": 9052} in way["ports"]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_label_that_is_selected_exists(layout: PodLayout) -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"] for one in resources(layout, "Deployment")
    ]
    selected = [one["spec"]["podSelector"] for one in resources(layout, "NetworkPolicy")]

    assert [one for one in selected if one and one["matchLabels"] not in labels] == []
    assert [
        one for one in resources(layout, "Service") if one["spec"]["selector"] not in labels
    ] == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_mounted_volume_exists(layout: PodLayout) -> None:
    for pod in pods(layout).values():
        names = {volume["name"] for volume in pod["volumes"]}
        for container in (*pod["initContainers"], *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= names


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_variable_of_a_service_is_one_that_the_proxy_reads(layout: PodLayout) -> None:
    """Kubernetes sets NAME_PORT for each service: of one named claude-proxy, CLAUDE_PROXY_PORT."""
    names = [one["metadata"]["name"] for one in resources(layout, "Service", "claude")]

    assert "claude-proxy" not in names
    assert all(pod["enableServiceLinks"] is False for pod in proxies(layout))


def proxies(layout: PodLayout) -> list[dict[str, Any]]:
    return [pod for name, pod in pods(layout).items() if name == "proxy" or layout is PodLayout.ONE]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_secret_is_in_a_file_nor_given_to_the_agent(layout: PodLayout) -> None:
    agent = pods(layout)["agent"]["containers"][0]

    assert resources(layout, "Secret") == []
    keys = [one["valueFrom"] for one in agent["env"] if "valueFrom" in one]
    assert [one["secretKeyRef"]["name"] for one in keys] == (
        ["claude-login"] if layout is PodLayout.TWO else []
    )
    assert not [mount for mount in agent["volumeMounts"] if "ca" in mount["name"].split("-")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_policy_is_one_that_the_proxy_takes(layout: PodLayout) -> None:
    text = texts(layout)["kubernetes/allowlist.yaml"]

    assert loader.load(text, name="allowlist.yaml").allow
