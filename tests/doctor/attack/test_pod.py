"""What the probes of a pod get: the proxy of the environment, and what should not be reachable."""

from pathlib import Path

import pytest

from claude_proxy.doctor.attack import catalogue, pod
from claude_proxy.errors import ConfigError
from claude_proxy.wire.authority import Authority

PROXY = {"HTTPS_PROXY": "http://127.0.0.1:3128"}


def test_the_proxy_is_that_of_the_environment() -> None:
    found = pod.parameters({"HTTPS_PROXY": "http://agent:p%40ss@10.0.0.7:9051"}, [])

    assert found["proxy"] == found["socks"] == ["10.0.0.7", 9051]
    assert found["login"] == "agent:p@ss"


def test_a_proxy_without_a_password_gets_none() -> None:
    assert pod.parameters({"https_proxy": "http://127.0.0.1:3128"}, [])["login"] is None


def test_the_server_of_the_clusters_api_is_a_canary() -> None:
    cluster = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}

    found = pod.parameters(PROXY | cluster, [Authority.of("10.0.0.9", 9052)])

    assert found["canaries"]["tcp"] == [["10.0.0.9", 9052], ["10.96.0.1", 443]]


def test_the_proxy_is_asked_first() -> None:
    assert pod.parameters(PROXY, [])["attacks"][0] == catalogue.POD_PROXY.name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "no variable names a proxy"),
        ("", "no variable names a proxy"),
        ("http://agent:secret@$(X_SERVICE_HOST):9051", "not the URL of a proxy"),
        ("http://agent:secret@host", "not the URL of a proxy"),
        ("http://agent:secret@[::1:9051", "not the URL of a proxy"),
        ("socks5://127.0.0.1:1", "not the URL of a proxy"),
        ("http://h:port", "not the URL of a proxy"),
    ],
)
def test_a_proxy_that_is_not_named_is_an_error(value: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        pod.parameters({} if value is None else {"HTTPS_PROXY": value}, [])

    assert "secret" not in "\n".join(caught.value.lines())


def test_the_network_of_the_machine_itself_is_not_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod, "_FIRST_NETWORK", Path("/proc/self/ns/net").stat().st_ino)

    with pytest.raises(ConfigError, match="network of the machine itself"):
        pod.attack_here(PROXY, [])
