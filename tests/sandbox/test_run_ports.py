"""The port mappings of a run are opened, said and listed as they were asked for."""

import socket
from pathlib import Path

import pytest

from claude_proxy.config.port_mappings import Published, parse_forward
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox import run_ports
from claude_proxy.sandbox.run_spec import RunSpec
from claude_proxy.system import proxy_listeners
from tests.sandbox.boxes import a_spec


def a_run(tmp_path: Path, **changes: object) -> RunSpec:
    allowlist = tmp_path / "allowlist.yaml"
    allowlist.write_text("allow: [example.com]\n", "utf-8")
    settings = Settings(allowlist, tmp_path / "conf", tmp_path / "state")
    return RunSpec(a_spec(), settings, **changes)  # type: ignore[arg-type]


def test_what_no_rule_allows_and_which_port_was_free_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    run_spec = a_run(
        tmp_path,
        forwards=(parse_forward("5432=db.corp:5432"),),
        published=(Published("127.0.0.1", 0, 3000),),
    )

    with run_ports.opened(run_spec, said.append) as ports:
        assert ports.places == [("127.0.0.1", 5432)]
        (listener,) = ports.listeners
    assert said[0].startswith("warning: --forward 5432=db.corp:5432 leads nowhere")
    assert said[1] == f"note: {listener}"


def test_the_policy_of_a_running_proxy_is_not_guessed(tmp_path: Path) -> None:
    said: list[str] = []
    run_spec = a_run(
        tmp_path, join="127.0.0.1:9051", forwards=(parse_forward("5432=db.corp:5432"),)
    )

    with run_ports.opened(run_spec, said.append):
        assert said == []


def test_each_tunnel_is_paired_with_its_place(tmp_path: Path) -> None:
    given = (parse_forward("5432=db.corp:6432"), parse_forward("8080=host:11434"))
    with (
        run_ports.opened(a_run(tmp_path, forwards=given), lambda _line: None) as ports,
        socket.socket() as first,
        socket.socket() as second,
    ):
        assert ports.tunnels([first, second]) == [
            (first, "db.corp:6432"),
            (second, "localhost:11434"),
        ]


def test_a_run_that_publishes_nothing_starts_no_publisher(tmp_path: Path) -> None:
    given = (parse_forward("5432=db.corp:6432"),)
    with (
        run_ports.opened(a_run(tmp_path, forwards=given), lambda _line: None) as ports,
        ports.published(1, None, None) as publishers,  # type: ignore[arg-type]
    ):
        assert publishers == ()


def test_a_dry_run_lists_them_without_listening(tmp_path: Path) -> None:
    run_spec = a_run(
        tmp_path,
        forwards=(parse_forward("5432=db.corp:5432"),),
        published=(Published("127.0.0.1", 1, 3000), Published("127.0.0.1", 0, 3001)),
        publishes_new=True,
    )

    assert [*run_ports.lines(run_spec)] == [
        "# 127.0.0.1:5432 inside leads to db.corp:5432 (--forward)",
        "# 127.0.0.1:1 on this machine leads to port 3000 inside (--publish)",
        "# a free port of 127.0.0.1 on this machine leads to port 3001 inside (--publish)",
        "# ports that programs inside begin to listen on are published (--publish auto)",
    ]


def test_an_invalid_policy_is_an_error_before_anything_listens(tmp_path: Path) -> None:
    run_spec = a_run(tmp_path, forwards=(parse_forward("5432=db.corp:5432"),))
    run_spec.settings.allowlist.write_text("allow: 5\n", "utf-8")

    with pytest.raises(ConfigError), run_ports.opened(run_spec, lambda _line: None):
        pass


def test_a_run_is_not_led_to_another_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_listeners, "is_proxy", lambda port: port == 9051)
    run_spec = a_run(tmp_path, forwards=(parse_forward("8080=host:9051"),))

    with (
        pytest.raises(ConfigError, match="claude-proxy itself listens on port 9051") as refused,
        run_ports.opened(run_spec, lambda _line: None),
    ):
        pass

    assert "--proxy 127.0.0.1:9051" in (refused.value.fix or "")
