"""Laws of `claude-proxy credentials`: it tells where values are, and never what they are."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.cli import main
from claude_proxy.policy.credentials.login_hash import digest_of, read_hash
from claude_proxy.vault.pins import PinStore

CANARY = "sk-ant-api03-CANARY-0123456789"
ALLOWLIST = """\
allow: [api.anthropic.com, github.com, git.example]
credentials:
  - host: api.anthropic.com
    name: anthropic
    inject: auto
    from: {env: CANARY_KEY}
  - hosts: [github.com, "*.github.com"]
    name: github
    pin: learn
  - host: git.example
    name: git
    ports: [8443]
    inject: basic
    user: me
    from: {command: [cat, /no/such/file]}
  - host: hub.example
    name: hub
    pin: "sha256:00112233445566778899aabbccddeeff:%s"
  - host: registry.example
    name: registry
    pin: {from: {file: /no/such/file}}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an allowlist, which is the state directory, too."""
    (tmp_path / "allowlist.yaml").write_text(ALLOWLIST % ("0" * 64), encoding="utf-8")
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(tmp_path))
    monkeypatch.setenv("CLAUDE_PROXY_STATEDIR", str(tmp_path / "state"))
    monkeypatch.setenv("CANARY_KEY", CANARY)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(["credentials", *arguments])
    out, err = capsys.readouterr()
    assert "sk-ant-api03" not in out + err
    return code, out, err


def learn(place: Path, name: str = "github") -> None:
    store = PinStore(place / "state")
    salt = store.prepare().salt
    store.learn(name, (salt, digest_of(salt, CANARY.encode())))


def hash_in(out: str) -> tuple[bytes, bytes]:
    return read_hash(out.strip().removeprefix('pin: "').removesuffix('"'))


@pytest.mark.parametrize("words", [(), ("list",)])
@pytest.mark.usefixtures("place")
def test_the_list_tells_where_each_comes_from(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, *words)

    assert (code, err) == (0, "")
    assert "anthropic: api.anthropic.com\n  kind:    inject as auto" in out
    assert "source:  environment variable CANARY_KEY\n  now:     available" in out
    assert "github: github.com, *.github.com\n" in out
    assert "pinned:  nothing yet" in out
    assert "git: git.example (ports 8443)" in out
    assert "source:  command cat\n  now:     unavailable: the command failed (exit code 1)" in out
    assert "pinned:  1 given hash" in out
    assert "source:  file /no/such/file\n  now:     unavailable: the file cannot be read" in out


def test_the_list_tells_since_when_a_login_is_pinned(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    learn(place)

    _, out, _ = run(capsys)

    assert "  pinned:  since 20" in out


def test_the_list_as_json_is_read_by_programs(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    learn(place)

    code, out, _ = run(capsys, "--json")

    found = {facts["name"]: facts for facts in json.loads(out)}
    assert code == 0
    assert found["anthropic"]["available"] is True
    assert found["git"]["available"] is False
    assert found["github"]["pinned"] == 1
    assert found["github"]["pinned_since"].startswith("20")
    assert found["hub"]["pinned"] == found["registry"]["pinned"] == 1
    assert found["hub"]["declared"] == f"{place}/allowlist.yaml:16"


def test_a_list_without_credentials_says_so(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    (place / "allowlist.yaml").write_text("allow: [github.com]\n", encoding="utf-8")

    assert run(capsys)[1] == f"no credentials in {place}/allowlist.yaml\n"
    assert json.loads(run(capsys, "--json")[1]) == []


def test_a_damaged_file_of_pins_is_told_in_the_list(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    learn(place)
    (place / "state" / "pins.json").write_text("what?", encoding="utf-8")

    code, out, _ = run(capsys)

    assert code == 0
    assert "now:     unavailable: the pinned logins cannot be used" in out


def test_the_values_of_others_are_not_shown_to_commands(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    text = (ALLOWLIST % ("0" * 64)).replace(
        "[cat, /no/such/file]", '[sh, -c, "env > $OUT; echo value-of-it"]'
    )
    (place / "allowlist.yaml").write_text(text, encoding="utf-8")
    os.environ["OUT"] = str(place / "out")
    try:
        run(capsys)
    finally:
        del os.environ["OUT"]

    assert "CANARY" not in (place / "out").read_text("utf-8")


# --- hash


@pytest.mark.parametrize("text", [f"{CANARY}\n", CANARY, f"Bearer {CANARY}\r\n", f" {CANARY}\n\n"])
def test_a_login_is_hashed_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    code, out, err = run(capsys, "hash")

    salt, digest = hash_in(out)
    assert (code, err) == (0, "")
    assert digest == digest_of(salt, CANARY.encode())
    assert len(salt) == 16


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no login"),
        ("\n", "no login"),
        ("x" * 9000, "long"),
        (f"{CANARY}\nuser: me\n", "more than one line"),
        (f"Bearer {CANARY}\r{CANARY}", "more than one line"),
        (f"\n{CANARY}\n{CANARY}", "more than one line"),
    ],
)
def test_what_is_no_login_is_not_hashed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    code, out, err = run(capsys, "hash")

    assert (code, out) == (2, "")
    assert why in err


def test_at_a_terminal_a_login_is_not_shown() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "claude_proxy", "credentials", "hash"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
    ) as child:
        os.close(theirs)
        said = b""
        while b"not shown" not in said:
            said += os.read(ours, 1000)
        os.write(ours, f"{CANARY}\n".encode())
        out, _ = child.communicate()
        try:
            while more := os.read(ours, 1000):
                said += more
        except OSError:
            pass  # the other end is closed
    os.close(ours)

    salt, digest = hash_in(out.decode())
    assert digest == digest_of(salt, CANARY.encode())
    assert b"CANARY" not in said


# --- forget


def test_one_login_alone_is_forgotten(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    learn(place)
    learn(place, "other")

    code, out, err = run(capsys, "forget", "github")

    assert (code, err) == (0, "")
    assert "forgotten" in out
    assert PinStore(place / "state").read().by_name.keys() == {"other"}


def test_what_is_not_pinned_cannot_be_forgotten(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    assert run(capsys, "forget", "github")[0] == 1
    assert not (place / "state").exists()
    learn(place, "other")

    code, out, err = run(capsys, "forget", "gith\x1bub")

    assert (code, out) == (1, "")
    assert "\x1b" not in err
    assert "use one of: other" in err


def test_pins_that_cannot_be_changed_are_told(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(30, "Read-only file system")

    learn(place)
    monkeypatch.setattr(os, "fsync", full)

    code, _, err = run(capsys, "forget", "github")

    assert code == 1
    assert "read-only file system" in err


@pytest.mark.parametrize(("begun", "offered"), [("", {"github", "other"}), ("gi", {"github"})])
def test_names_of_pins_are_completed(
    capfd: pytest.CaptureFixture[str],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    begun: str,
    offered: set[str],
) -> None:
    learn(place)
    learn(place, "other")
    monkeypatch.setenv("_CLAUDE_PROXY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"claude-proxy credentials forget {begun}")
    monkeypatch.setenv("COMP_CWORD", "3")

    assert main.main([]) == 0

    assert set(capfd.readouterr().out.split()) == {f"plain,{name}" for name in offered}


def test_a_damaged_file_of_pins_completes_nothing(
    capfd: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "state").mkdir()
    (place / "state" / "pins.json").write_text("what?", encoding="utf-8")
    monkeypatch.setenv("_CLAUDE_PROXY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "claude-proxy credentials forget ")
    monkeypatch.setenv("COMP_CWORD", "3")

    assert main.main([]) == 0

    assert capfd.readouterr().out.strip() == ""


@pytest.mark.parametrize("words", [("--help",), ("list", "--help"), ("forget", "--help")])
def test_help_is_given_at_every_level(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, out, _ = run(capsys, *words)

    assert code == 0
    assert "Usage: claude-proxy credentials" in out


def test_options_complete_without_a_command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_CLAUDE_PROXY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "claude-proxy credentials ")
    monkeypatch.setenv("COMP_CWORD", "2")

    assert main.main([]) == 0

    assert {"plain,list", "plain,hash", "plain,forget"} == set(capfd.readouterr().out.split())
