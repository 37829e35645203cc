"""Laws of sources: a value that others could read or replace is refused; no error shows a value."""

import logging
import os
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend

from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    DotenvSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SecretSource,
    SystemdSource,
    source_name,
)
from claude_proxy.vault import sources
from claude_proxy.vault.sources import read, stamp_of

CANARY = "sk-ant-api03-CANARY-0123456789"
NOBODY = 65534


@pytest.fixture(params=["root", "nobody"])
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of the user's own: root's, and where we are root an ordinary user's as well."""
    found = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    try:
        if request.param == "nobody" and root:
            os.chown(found, NOBODY, NOBODY)
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
        yield found
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)
        shutil.rmtree(found)


def file_with(place: Path, text: str = CANARY + "\n", mode: int = 0o600) -> Path:
    path = place / "key"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def refused(source: SecretSource, environ: dict[str, str] | None = None) -> str:
    """Return all that is said about a source that gives nothing."""
    with pytest.raises(ConfigError) as caught:
        read(source, environ or {})
    message = "\n".join(caught.value.lines())
    assert caught.value.where is not None
    assert caught.value.fix is not None
    assert "CANARY" not in message
    assert "CANARY" not in repr(caught.value)
    assert caught.value.__cause__ is None
    return message


def script(text: str) -> CommandSource:
    return CommandSource((sys.executable, "-c", text))


# --- what every value has to be


def test_a_variable_gives_its_value() -> None:
    assert read(EnvironmentSource("KEY"), {"KEY": CANARY}).reveal() == CANARY.encode()


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}])
def test_a_variable_that_is_not_set_is_named(environ: dict[str, str]) -> None:
    assert "KEY" in refused(EnvironmentSource("KEY"), environ)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("dummy", "placeholder"),
        ("Placeholder", "placeholder"),
        ("CHANGEME", "placeholder"),
        ("sk-ant-claude-proxy-placeholder-CANARY", "placeholder"),
        ("claude-proxy-placeholder-CANARY", "placeholder"),
        ("CANARY with blanks", "space"),
        ("CANARY\ttab", "space"),
        ("CANARY\r\nInjected: field", "space"),
        ("CANARY\n\n", "space"),
        ("CANARY-ü", "no key contains"),
        ("CANARY\udcff", "no key contains"),
        ("CANARY" * 2000, "longer than"),
        ("CANARY", "shorter than 8"),
    ],
)
def test_an_invalid_value_is_refused_and_not_quoted(value: str, why: str) -> None:
    assert why in refused(EnvironmentSource("KEY"), {"KEY": value})


# --- files


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_gives_its_line(place: Path, end: str) -> None:
    path = file_with(place, CANARY + end)

    assert read(FileSource(path), {}).reveal() == CANARY.encode()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o601])
def test_a_file_that_others_may_use_is_refused(place: Path, mode: int) -> None:
    message = refused(FileSource(file_with(place, mode=mode)))

    assert f"mode {mode:04o}" in message
    assert "chmod 600" in message


def test_a_file_of_another_user_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_with(place)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    else:  # an ordinary user cannot give files away, but may be taken for somebody else
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY - 1)

    assert "another user" in refused(FileSource(path))


def test_a_link_is_not_followed(place: Path) -> None:
    link = place / "link"
    link.symlink_to(file_with(place))

    assert "it is a link" in refused(FileSource(link))


def test_a_pipe_does_not_block(place: Path) -> None:
    os.mkfifo(place / "pipe", 0o600)

    assert "not a regular file" in refused(FileSource(place / "pipe"))


def test_a_directory_is_no_file(place: Path) -> None:
    refused(FileSource(place))


def test_a_directory_that_others_may_write_is_refused(place: Path) -> None:
    within = place / "within"
    within.mkdir()
    path = file_with(within)
    within.chmod(0o777)

    assert "changed by other users" in refused(FileSource(path))


def test_a_missing_file_is_named(place: Path) -> None:
    assert str(place / "none") in refused(FileSource(place / "none"))


def test_a_huge_file_is_refused(place: Path) -> None:
    assert "larger than 64 KiB" in refused(FileSource(file_with(place, "CANARY" * 20_000)))


def test_a_home_may_be_written_as_a_tilde(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_with(place)
    monkeypatch.setenv("HOME", str(place))

    assert read(FileSource(Path("~/key")), {}).reveal() == CANARY.encode()
    assert stamp_of(FileSource(Path("~/key")), {}) == stamp_of(FileSource(place / "key"), {})


def test_a_user_without_a_home_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 1_234_567_890)  # whom no passwd knows

    for source in (FileSource(Path("~/key")), CommandSource(("~/give",))):
        assert "no home directory" in refused(source)
        assert stamp_of(source, {}) is None


def test_a_value_inside_json_is_found_by_its_keys(place: Path) -> None:
    path = file_with(place, f'{{"a": {{"b.c": "{CANARY}"}}, "n": 1}}')

    assert read(FileSource(path, ("a", "b.c")), {}).reveal() == CANARY.encode()
    for keys in (("a",), ("n",), ("x",), ("a", "b.c", "d")):
        assert "no text under the key" in refused(FileSource(path, keys))


@pytest.mark.parametrize("text", [f"{CANARY}", f'{{"CANARY": {CANARY}}}', "[" * 200_000, ""])
def test_invalid_json_is_refused_and_not_quoted(place: Path, text: str) -> None:
    assert "not JSON" in refused(FileSource(file_with(place, text), ("a",)))


def test_a_stamp_changes_with_the_file(place: Path) -> None:
    source = FileSource(file_with(place))
    before = stamp_of(source, {})

    (place / "key").chmod(0o400)

    assert before is not None
    assert stamp_of(source, {}) != before
    (place / "key").unlink()
    assert stamp_of(source, {}) is None


# --- .env


def test_a_dotenv_file_gives_its_variable(place: Path) -> None:
    path = file_with(place, f"OTHER=1\nKEY={CANARY}\n")

    assert read(DotenvSource(path, "KEY"), {}).reveal() == CANARY.encode()
    assert stamp_of(DotenvSource(path, "KEY"), {}) is not None
    refused(DotenvSource(path, "NONE"))
    refused(DotenvSource(place / "none", "KEY"))


# --- systemd


def test_the_service_manager_passes_a_credential(place: Path) -> None:
    path = file_with(place)
    # An ACL's mask stands where the group's bits do.
    path.chmod(0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(place)}

    assert read(SystemdSource("key"), environ).reveal() == CANARY.encode()
    assert stamp_of(SystemdSource("key"), environ) == stamp_of(FileSource(path), {})
    path.chmod(0o444)
    assert "mode 0444" in refused(SystemdSource("key"), environ)


@pytest.mark.parametrize("name", ["../key", "/etc/passwd", "..", "."])
def test_the_name_of_a_credential_cannot_be_another_path(place: Path, name: str) -> None:
    message = refused(SystemdSource(name), {"CREDENTIALS_DIRECTORY": str(place)})

    assert "not the name of a credential" in message


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": "relative"}])
def test_without_a_service_manager_there_is_no_credential(environ: dict[str, str]) -> None:
    assert "LoadCredential=key" in refused(SystemdSource("key"), environ)
    assert stamp_of(SystemdSource("key"), environ) is None


# --- commands


def test_a_command_gives_what_it_prints() -> None:
    assert read(script(f"print('{CANARY}')"), {}).reveal() == CANARY.encode()


def test_withheld_variables_are_not_in_the_environment_of_a_command() -> None:
    source = script("import os; print('seen-' + '-'.join(sorted(os.environ)))")

    value = read(source, {"KEPT": "1", "KEY": CANARY}, {"KEY"}).reveal()

    assert b"KEPT" in value
    assert b"KEY" not in value


def test_a_failing_command_is_reported_by_exit_code_without_its_output() -> None:
    text = f"import sys; print('{CANARY}'); print('{CANARY}', file=sys.stderr); sys.exit(3)"

    assert "exit code 3" in refused(script(text))


def test_the_standard_error_of_a_command_is_never_shown(
    capfd: pytest.CaptureFixture[str],
) -> None:
    read(script(f"import sys; print('{CANARY}'); print('{CANARY}', file=sys.stderr)"), {})

    assert capfd.readouterr() == ("", "")


def test_a_command_is_not_given_to_a_shell() -> None:
    assert "the command cannot be started" in refused(CommandSource(("echo words",)))
    assert read(CommandSource(("echo", "$HOME;`id`")), os.environ).reveal() == b"$HOME;`id`"


def test_a_commands_arguments_are_not_named() -> None:
    assert "CANARY" not in source_name(CommandSource(("prog", "--password=CANARY")))


@pytest.mark.parametrize("argv", [("/no/such/program",), ("no-such-program",), ("x\0y",), ("/",)])
def test_a_command_that_cannot_be_started_is_named(argv: tuple[str, ...]) -> None:
    assert "the command cannot be started" in refused(CommandSource(argv))


def test_a_command_below_the_home_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = place / "give"
    program.write_text(f"#!/bin/sh\necho {CANARY}\n", encoding="utf-8")
    program.chmod(0o700)
    monkeypatch.setenv("HOME", str(place))

    assert read(CommandSource(("~/give",)), {}).reveal() == CANARY.encode()


def test_a_command_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_COMMAND_S", 0.3)

    # Its output stays open in a grandchild, too.
    message = refused(
        CommandSource(("sh", "-c", "sleep 1000 & echo CANARY; wait")), dict(os.environ)
    )

    assert "has not ended" in message


def test_a_command_that_closes_its_output_but_keeps_running_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "_COMMAND_S", 0.5)

    message = refused(CommandSource(("sh", "-c", "exec >&-; sleep 1000")), dict(os.environ))

    assert "has not ended" in message


def test_end_commands_kills_a_command_and_its_child_processes() -> None:
    faults: list[str] = []
    source = CommandSource(("sh", "-c", "sleep 1000 & sleep 1000"))
    asking = threading.Thread(target=lambda: faults.append(refused(source)))
    asking.start()
    while not sources._running:
        time.sleep(0.01)

    while asking.is_alive():  # the program itself may not be there yet
        sources.end_commands()
        asking.join(0.05)

    assert ["failed" in fault for fault in faults] == [True]
    assert sources._running == set()


def test_a_command_that_prints_without_end_is_killed() -> None:
    assert "prints more than 64 KiB" in refused(CommandSource(("yes", "CANARY")), dict(os.environ))


# --- keyrings


class OneEntry(KeyringBackend):
    """A keyring of one entry, instead of the system's."""

    priority = 1.0

    def __init__(self, value: str | Exception) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._value = value

    def get_password(self, service: str, username: str) -> str | None:
        if isinstance(self._value, Exception):
            raise self._value
        return self._value if (service, username) == ("anthropic", "me") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@pytest.fixture
def use_keyring() -> Iterator[Callable[[str | Exception], None]]:
    """Return a function that makes a keyring of one value the one that is in use."""
    before = keyring.get_keyring()
    yield lambda value: keyring.set_keyring(OneEntry(value))
    keyring.set_keyring(before)


def test_a_keyring_gives_its_entry(use_keyring: Callable[[str | Exception], None]) -> None:
    use_keyring(CANARY)

    assert read(KeyringSource("anthropic", "me"), {}).reveal() == CANARY.encode()
    assert "no such entry" in refused(KeyringSource("anthropic", "you"))


def test_the_error_of_a_keyring_is_not_quoted(
    use_keyring: Callable[[str | Exception], None],
) -> None:
    use_keyring(RuntimeError(CANARY))

    assert "RuntimeError" in refused(KeyringSource("anthropic", "me"))


def test_a_machine_without_a_keyring_is_an_error() -> None:
    # What the package itself falls back to where there is no D-Bus.
    assert "keyring" in refused(KeyringSource("anthropic", "me"))


def test_without_the_package_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)

    assert "pipx inject claude-proxy keyring" in refused(KeyringSource("anthropic", "me"))


# --- all of them


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (EnvironmentSource("KEY"), "environment variable KEY"),
        (DotenvSource(Path("/x/.env"), "KEY"), "KEY in /x/.env"),
        (FileSource(Path("/x/key"), ("a", "b")), "file /x/key, key a.b"),
        (CommandSource(("prog", "--pass", "canary")), "command prog"),
        (KeyringSource("service", "user"), "keyring entry service of user"),
        (SystemdSource("name"), "systemd credential name"),
    ],
)
def test_the_name_of_a_source_contains_no_secret(source: SecretSource, name: str) -> None:
    assert source_name(source) == name
    assert stamp_of(source, {}) is None


def test_reading_logs_nothing(caplog: pytest.LogCaptureFixture, place: Path) -> None:
    with caplog.at_level(logging.DEBUG):
        read(FileSource(file_with(place)), {})
        read(CommandSource(("echo", CANARY)), {})
        refused(EnvironmentSource("KEY"), {"KEY": f"{CANARY} {CANARY}"})

    assert "CANARY" not in caplog.text
    assert stat.S_IMODE((place / "key").stat().st_mode) == 0o600
