"""A notification shows a question where there is a desktop, and nothing of a client's is markup."""

import asyncio
from pathlib import Path

import uvloop

from claude_proxy.policy.questions import Access, Facts, Subject
from claude_proxy.policy.request import Scheme
from claude_proxy.server.desktop_notices import arguments_for, notify, program_for
from claude_proxy.wire.authority import Authority

SUBJECT = Subject("web", Scheme.HTTPS, Authority.of("a.test", 443), Access.READ)
FACTS = Facts(SUBJECT, "GET", "/<b>\x1b&" + "x" * 400, "curl", None)


def a_desktop(tmp_path: Path, script: str) -> dict[str, str]:
    program = tmp_path / "notify-send"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o700)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin", "DISPLAY": ":0", "DBUS_SESSION_BUS_ADDRESS": "x"}


def test_without_a_desktop_there_is_no_notification(tmp_path: Path) -> None:
    environ = a_desktop(tmp_path, "")

    assert program_for(environ) == tmp_path / "notify-send"
    for missing in environ:
        assert program_for({**environ, missing: "/nowhere" if missing == "PATH" else ""}) is None


def test_a_notification_says_what_is_asked_in_plain_text() -> None:
    app, end, title, body = arguments_for(FACTS)

    assert (app, end, title) == ("--app-name=claude-proxy", "--", "claude-proxy: run web asks")
    assert body.startswith("GET https://a.test:443/&lt;b&gt;\\x1b&amp;xxx")
    assert body.endswith("...\nAnswer in a terminal: claude-proxy ask")


def test_a_program_that_fails_changes_nothing(tmp_path: Path) -> None:
    environ = a_desktop(tmp_path, f'echo "$3" > {tmp_path}/title; exit 3')

    asyncio.run(
        notify(tmp_path / "notify-send", FACTS, environ), loop_factory=uvloop.new_event_loop
    )
    asyncio.run(notify(tmp_path / "missing", FACTS, environ), loop_factory=uvloop.new_event_loop)

    assert "run web asks" in (tmp_path / "title").read_text(encoding="utf-8")
