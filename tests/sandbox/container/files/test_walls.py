"""Every container is led to its proxy, and trusts it."""

from claude_proxy.sandbox.container.files.walls import agent_environment


def test_every_variable_of_a_proxy_names_the_one_beside_the_container() -> None:
    found = agent_environment()

    assert found["HTTPS_PROXY"] == found["http_proxy"] == "http://127.0.0.1:3128"
    assert found["ALL_PROXY"] == "socks5h://127.0.0.1:1080"


def test_a_proxy_elsewhere_speaks_everything_on_one_port() -> None:
    found = agent_environment(host="10.0.0.1", port=9051)

    assert {found[name] for name in ("HTTPS_PROXY", "ALL_PROXY")} == {"http://10.0.0.1:9051"}
    assert found["SSL_CERT_FILE"] == "/run/claude-proxy/bundle.pem"


def test_telemetry_is_off() -> None:
    assert agent_environment()["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"
