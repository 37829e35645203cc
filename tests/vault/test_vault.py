"""Laws of the vault: values are current, unavailable where their source fails, and never shown."""

import logging
import os
import pickle
import sys
import threading
from collections import UserDict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import override

import pytest

from claude_proxy.errors import ConfigErrors
from claude_proxy.policy.credentials.binding import Binding, Injection, LoginPin
from claude_proxy.policy.credentials.decision import PinnedLogins
from claude_proxy.policy.credentials.login_hash import digest_of, hash_of
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SecretSource,
)
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.vault import pins, vault
from claude_proxy.vault.vault import Vault
from tests.support.processes import has_ended
from tests.support.waiting import until

KEY = b"sk-ant-api03-CANARY-one"
NEW = b"sk-ant-api03-CANARY-two"
SALT = bytes(16)


def bound(use: Injection | LoginPin, name: str = "a", line: int = 7) -> Binding:
    host = HostPattern.parse(f"{name}.example")
    return Binding(name, (host,), use, Location("allowlist.yaml", line, 5))


def injected(source: SecretSource, name: str = "a") -> Binding:
    return bound(Injection(source), name)


LEARNED = bound(LoginPin(learn=True))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every question look at the files."""
    monkeypatch.setattr(vault, "_LOOK_S", 0.0)
    monkeypatch.setattr(vault, "_RETRY_S", 0.01)
    monkeypatch.setattr(vault, "_AFTER_REFUSAL_S", 0.0)


@pytest.fixture
def statedir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    written(path, KEY)
    return path


def written(path: Path, value: bytes) -> None:
    """Replace a file at once, like a program that rotates a key."""
    fresh = path.with_name("fresh")
    fresh.write_bytes(value)
    fresh.chmod(0o600)
    fresh.replace(path)


def value_of(held: object) -> bytes | None:
    return held.reveal() if isinstance(held, Secret) else None


def counting(tmp_path: Path) -> tuple[CommandSource, Path]:
    """Return a command that prints another value each time, and fails while a file is there."""
    fails = tmp_path / "fails"
    text = (
        f"import os, sys; n = '{tmp_path}/count'\n"
        f"sys.exit(1) if os.path.exists('{fails}') else None\n"
        "with open(n, 'a') as f: f.write('x')\n"
        "print('CANARY-value-%d' % os.path.getsize(n))"
    )
    return CommandSource((sys.executable, "-c", text), refresh_s=3600), fails


# --- the start


def test_every_source_is_read_at_the_start(file: Path, statedir: Path) -> None:
    bindings = [injected(FileSource(file)), injected(EnvironmentSource("KEY"), "b")]

    with closing(Vault(bindings, statedir, {"KEY": NEW.decode()})) as held:
        assert value_of(held.secrets["a"]) == KEY
        assert value_of(held.secrets["b"]) == NEW
    assert not statedir.exists()  # nothing is to be learned


def test_all_failures_at_the_start_are_reported_together(statedir: Path, tmp_path: Path) -> None:
    bindings = [injected(EnvironmentSource("NONE")), injected(FileSource(tmp_path / "no"), "b")]

    with pytest.raises(ConfigErrors) as caught:
        Vault(bindings, statedir, {})

    shown = "\n".join(caught.value.lines())
    assert '"a"' in shown
    assert '"b"' in shown
    assert "allowlist.yaml:7, environment variable NONE" in shown
    assert str(tmp_path / "no") in shown


def test_a_damaged_file_of_pins_stops_the_start(statedir: Path) -> None:
    statedir.mkdir()
    (statedir / "pins.json").write_text("what?")

    with pytest.raises(ConfigErrors, match="pinned logins"):
        Vault([LEARNED], statedir, {})


def test_a_state_directory_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigErrors, match="pinned logins"):
        Vault([LEARNED], tmp_path / "file" / "state", {})


def test_a_value_is_removed_from_the_environment(
    statedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", KEY.decode())
    monkeypatch.setenv("CANARY_OTHER", KEY.decode())
    bindings = [injected(EnvironmentSource("CANARY_KEY"))]

    with closing(Vault(bindings, statedir, withheld=["CANARY_OTHER"])) as held:
        assert "CANARY_KEY" not in os.environ
        assert "CANARY_OTHER" not in os.environ
        held.replace([])
        held.replace(bindings)  # what was read once is still known
        assert value_of(held.secrets["a"]) == KEY


# --- what changes later


def test_a_rotated_file_is_read_again(file: Path, statedir: Path) -> None:
    with closing(Vault([injected(FileSource(file))], statedir, {})) as held:
        written(file, NEW)

        assert value_of(held.secrets["a"]) == NEW


def test_a_file_that_fails_later_has_no_value_until_it_works_again(
    file: Path, statedir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Vault([injected(FileSource(file))], statedir, {})) as held:
        file.chmod(0o644)
        for _ in range(3):
            assert held.secrets == {"a": None}

        def is_fixed() -> bool:
            file.chmod(0o600)  # at another moment than before, by the clock of the file system
            return value_of(held.secrets["a"]) == KEY

        until(is_fixed)

    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "credential source unavailable" in caplog.messages[0]
    assert "available again" in caplog.messages[1]


def test_a_file_is_not_read_again_without_a_change(file: Path, statedir: Path) -> None:
    with closing(Vault([injected(FileSource(file))], statedir, {})) as held:
        before = held.secrets["a"]

        assert held.secrets["a"] is before

        written(file, KEY)
        assert held.secrets["a"] is not before  # each reading makes one of its own


def test_files_are_checked_once_a_second_at_most(
    file: Path, statedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault, "_LOOK_S", 3600.0)
    with closing(Vault([injected(FileSource(file))], statedir, {})) as held:
        assert held.secrets
        written(file, NEW)

        assert value_of(held.secrets["a"]) == KEY


def test_a_command_runs_again_after_its_refresh_time(tmp_path: Path, statedir: Path) -> None:
    source, _ = counting(tmp_path)
    often = CommandSource(source.argv, refresh_s=0.01)
    with closing(Vault([injected(often)], statedir, dict(os.environ))) as held:
        until(lambda: value_of(held.secrets["a"]) not in {None, b"CANARY-value-1"})


def test_a_command_runs_again_after_a_401_and_not_before(tmp_path: Path, statedir: Path) -> None:
    source, _ = counting(tmp_path)
    with closing(Vault([injected(source)], statedir, dict(os.environ))) as held:
        for status in (200, 403, 404, 429, 500):
            held.answered("a", status)
        assert value_of(held.secrets["a"]) == b"CANARY-value-1"

        held.answered("a", 401)

        until(lambda: value_of(held.secrets["a"]) == b"CANARY-value-2")


def test_a_command_that_has_just_run_does_not_run_for_every_401(
    tmp_path: Path, statedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault, "_AFTER_REFUSAL_S", 3600.0)
    source, _ = counting(tmp_path)
    with closing(Vault([injected(source)], statedir, dict(os.environ))) as held:
        for _ in range(10):
            held.answered("a", 401)
            assert value_of(held.secrets["a"]) == b"CANARY-value-1"
    assert (tmp_path / "count").read_text() == "x"


def test_a_command_that_fails_later_has_no_value_until_it_works_again(
    tmp_path: Path, statedir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, fails = counting(tmp_path)
    with closing(Vault([injected(source)], statedir, dict(os.environ))) as held:
        assert held.secrets
        fails.touch()
        held.answered("a", 401)
        until(lambda: held.secrets == {"a": None})
        fails.unlink()
        until(lambda: value_of(held.secrets["a"]) is not None)

    assert len(caplog.records) == 2


def test_a_command_with_a_current_value_does_not_run_for_a_reload(
    tmp_path: Path, statedir: Path
) -> None:
    source, _ = counting(tmp_path)
    with closing(Vault([injected(source)], statedir, dict(os.environ))) as held:
        held.replace([injected(source, "renamed"), injected(source, "twice")])

        assert value_of(held.secrets["renamed"]) == b"CANARY-value-1"
        assert held.secrets["renamed"] == held.secrets["twice"]
        assert "a" not in held.secrets


class Environment(UserDict[str, str]):
    """An environment that can be broken in a way that nobody has thought of."""

    broken = False

    @override
    def __iter__(self) -> Iterator[str]:
        if self.broken:
            raise RuntimeError(KEY)
        return super().__iter__()


def test_an_unexpected_exception_in_a_source_leaves_it_without_a_value(
    tmp_path: Path, statedir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, _ = counting(tmp_path)
    environment = Environment(os.environ)
    with closing(Vault([injected(source)], statedir, environment)) as held:
        assert held.secrets
        environment.broken = True
        held.answered("a", 401)
        until(lambda: held.secrets == {"a": None})
        environment.broken = False
        until(lambda: value_of(held.secrets["a"]) is not None)

    assert "RuntimeError" in caplog.text
    assert "CANARY" not in caplog.text


def test_no_command_outlives_the_vault(
    tmp_path: Path, statedir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # From the second time on it does not end, and neither does what it has started.
    text = (
        f"import os, subprocess, time; n = '{tmp_path}/count'\n"
        "with open(n, 'a') as f: f.write('x')\n"
        "again = os.path.getsize(n) > 1\n"
        "child = subprocess.Popen(['sleep', '1000']) if again else None\n"
        f"shown = open('{tmp_path}/pids', 'w') if again else None\n"
        "shown.write(f'{os.getpid()} {child.pid}.') and shown.close() if again else None\n"
        "time.sleep(1000) if again else print('CANARY-value')"
    )
    source, pids = CommandSource((sys.executable, "-c", text), refresh_s=0.01), tmp_path / "pids"
    with closing(Vault([injected(source)], statedir, dict(os.environ))) as held:
        assert held.secrets
        until(lambda: pids.exists() and pids.read_text().endswith("."))

    begun = [int(pid) for pid in pids.read_text().strip(".").split()]
    until(lambda: all(map(has_ended, begun)))
    assert "vault" not in {thread.name for thread in threading.enumerate()}
    assert not caplog.records  # that it was ended is no news


def test_a_closed_vault_reads_nothing(tmp_path: Path, statedir: Path) -> None:
    source, _ = counting(tmp_path)
    held = Vault([], statedir, dict(os.environ))
    held.close()

    with pytest.raises(ConfigErrors, match="is stopping"):
        held.prepare([injected(source)])

    assert not (tmp_path / "count").exists()


def test_a_keyring_is_read_again_too(statedir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Keyring:
        value = KEY.decode()

        def get_password(self, _service: str, _user: str) -> str:
            return self.value

    keyring = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    with closing(Vault([injected(KeyringSource("s", "u"))], statedir, {})) as held:
        assert value_of(held.secrets["a"]) == KEY
        keyring.value = NEW.decode()
        held.answered("a", 401)

        until(lambda: value_of(held.secrets["a"]) == NEW)


# --- reloads


def test_a_replacement_that_fails_changes_nothing(file: Path, statedir: Path) -> None:
    with closing(Vault([injected(FileSource(file))], statedir, {})) as held:
        with pytest.raises(ConfigErrors):
            held.replace([injected(EnvironmentSource("NONE"), "b")])

        assert value_of(held.secrets["a"]) == KEY
        assert held.secrets.keys() == {"a"}


def test_without_bindings_there_are_no_values(statedir: Path) -> None:
    with closing(Vault([], statedir, {})) as held:
        assert held.secrets == {}
    assert threading.active_count() >= 1


# --- pins


def login_by(held: Vault, value: bytes) -> tuple[bytes, bytes]:
    pinned = held.secrets["a"]
    assert isinstance(pinned, PinnedLogins)
    assert pinned.learning
    return pinned.salt, digest_of(pinned.salt, value)


def is_learning(held: Vault) -> bool:
    found = held.secrets["a"]
    return isinstance(found, PinnedLogins) and found.learning


def test_a_first_login_is_learned_and_kept(statedir: Path) -> None:
    with closing(Vault([LEARNED], statedir, {})) as held:
        login = login_by(held, KEY)

        held.learn("a", login)

        assert held.secrets == {"a": PinnedLogins(frozenset({login}))}
    with closing(Vault([LEARNED], statedir, {})) as again:
        assert again.secrets == {"a": PinnedLogins(frozenset({login}))}


def test_a_login_that_cannot_be_stored_is_not_learned(
    statedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with closing(Vault([LEARNED], statedir, {})) as held:
        login = login_by(held, KEY)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                held.learn("a", login)

        assert is_learning(held)


def test_two_proxies_agree_on_what_was_first(statedir: Path) -> None:
    with (
        closing(Vault([LEARNED], statedir, {})) as one,
        closing(Vault([LEARNED], statedir, {})) as other,
    ):
        mine, theirs = login_by(one, KEY), login_by(other, NEW)
        assert mine == login_by(other, KEY)  # one salt for all
        one.learn("a", mine)

        with pytest.raises(PermissionError):
            other.learn("a", theirs)
        assert other.secrets == {"a": PinnedLogins(frozenset({mine}))}


@pytest.mark.parametrize(
    ("statuses", "unlearned"),
    [
        ([401], True),
        ([200, 401], False),
        ([403, 401], False),
        ([100, 401], True),
        ([500, 429, 401], True),
        ([], False),
    ],
)
def test_a_learned_login_that_gets_a_401_is_forgotten(
    statedir: Path, statuses: list[int], *, unlearned: bool
) -> None:
    with closing(Vault([LEARNED], statedir, {})) as held:
        held.learn("a", login_by(held, KEY))
        for status in statuses:
            held.answered("a", status)

        assert is_learning(held) is unlearned


def test_an_older_pin_is_not_forgotten_after_a_401(statedir: Path) -> None:
    with closing(Vault([LEARNED], statedir, {})) as held:
        held.learn("a", login_by(held, KEY))
    with closing(Vault([LEARNED], statedir, {})) as again:
        again.answered("a", 401)

        assert not is_learning(again)


def test_a_pin_that_another_process_forgets_is_gone_here_too(statedir: Path) -> None:
    with closing(Vault([LEARNED], statedir, {})) as held:
        held.learn("a", login_by(held, KEY))
        assert not is_learning(held)

        assert pins.PinStore(statedir).forget("a")

        assert is_learning(held)


def test_pins_that_are_damaged_later_allow_no_login(
    statedir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Vault([LEARNED], statedir, {})) as held:
        held.learn("a", login_by(held, KEY))
        sound = (statedir / "pins.json").read_bytes()
        (statedir / "pins.json").write_text("what?")
        for _ in range(3):
            assert held.secrets == {"a": None}
        (statedir / "pins.json").write_bytes(sound)

        assert not is_learning(held)
        assert held.secrets["a"] is not None
    assert len(caplog.records) == 2


def test_a_pin_that_cannot_be_forgotten_is_logged(
    statedir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with closing(Vault([LEARNED], statedir, {})) as held:
        held.learn("a", login_by(held, KEY))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            held.answered("a", 401)

    assert "claude-proxy credentials forget a" in caplog.text


def test_given_hashes_and_values_are_pinned_and_nothing_is_learned(
    file: Path, statedir: Path
) -> None:
    given = bound(LoginPin(digests=(hash_of(KEY, SALT), hash_of(NEW, SALT))))
    by_value = bound(LoginPin(source=FileSource(file)), "b")

    with closing(Vault([given, by_value], statedir, {})) as held:
        pinned = held.secrets["a"]
        assert isinstance(pinned, PinnedLogins)
        assert pinned.logins == {(SALT, digest_of(SALT, KEY)), (SALT, digest_of(SALT, NEW))}
        other = held.secrets["b"]
        assert isinstance(other, PinnedLogins)
        [(salt, digest)] = other.logins
        assert digest == digest_of(salt, KEY)
        assert not pinned.learning
        assert not other.learning
        file.unlink()
        assert held.secrets["b"] is None


# --- silence


@pytest.fixture
def _loud(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield


@pytest.mark.usefixtures("_loud")
def test_no_repr_log_or_error_shows_a_value(
    file: Path, statedir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bindings = [injected(FileSource(file)), bound(LoginPin(learn=True), "b")]
    with closing(Vault(bindings, statedir, {})) as held:
        shown = [repr(held), repr(held.secrets), str(held.secrets), repr(vars(held))]
        written(file, KEY + b" with a blank")
        assert held.secrets["a"] is None
        with pytest.raises(ConfigErrors) as caught:
            held.replace([injected(FileSource(file))])
        shown += [*caught.value.lines(), repr(caught.value), repr(caught.value.problems)]
        with pytest.raises(TypeError):
            pickle.dumps(held)
    shown += [caplog.text, *(str(vars(record)) for record in caplog.records)]
    shown += [path.read_text("utf-8") for path in statedir.iterdir()]

    assert caplog.records
    assert "CANARY" not in "\n".join(shown)
