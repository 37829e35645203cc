"""Laws of pins: on disk before they count, shared by all processes, and never learned again."""

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.login_hash import digest_of
from claude_proxy.vault import pins
from claude_proxy.vault.pins import PinStore

SALT = bytes(16)
LOGIN = (SALT, digest_of(SALT, b"sk-ant-CANARY"))
OTHER = (SALT, digest_of(SALT, b"another"))


@pytest.fixture
def store(tmp_path: Path) -> PinStore:
    return PinStore(tmp_path / "state")


def prepared(store: PinStore) -> PinStore:
    store.prepare()
    return store


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_without_a_file_nothing_is_pinned_and_none_is_made(store: PinStore) -> None:
    assert store.read() == pins.Pins()
    assert store.stamp() is None
    assert not store.path.parent.exists()


def test_what_is_learned_is_kept_for_the_owner_alone(store: PinStore) -> None:
    before = os.umask(0)
    try:
        prepared(store).learn("a", LOGIN)
    finally:
        os.umask(before)

    assert PinStore(store.path.parent).read().by_name["a"].login == LOGIN
    assert (mode_of(store.path), mode_of(store.path.parent)) == (0o600, 0o700)
    assert {entry.name for entry in store.path.parent.iterdir()} == {"pins.json", "pins.lock"}


def test_the_file_holds_no_login(store: PinStore) -> None:
    prepared(store).learn("a", LOGIN)

    assert b"CANARY" not in store.path.read_bytes()
    assert LOGIN[1].hex().encode() in store.path.read_bytes()
    assert LOGIN[1].hex() not in repr(store.read())


def test_the_salt_stays_the_same(store: PinStore) -> None:
    salt = store.prepare().salt

    store.learn("a", LOGIN)
    store.forget("a")

    assert store.prepare().salt == store.read().salt == salt
    assert len(salt) == 16


def test_a_login_that_is_pinned_is_not_replaced(store: PinStore) -> None:
    prepared(store).learn("a", LOGIN)

    store.learn("a", LOGIN)
    with pytest.raises(PermissionError):
        store.learn("a", OTHER)
    with pytest.raises(PermissionError):
        store.learn("a", (bytes(17), LOGIN[1]))

    assert store.read().by_name["a"].login == LOGIN


def test_forgetting_removes_one_pin_only(store: PinStore) -> None:
    prepared(store).learn("a", LOGIN)
    store.learn("b", OTHER)

    assert store.forget("a")
    assert not store.forget("a")
    assert not store.forget("b", LOGIN)

    assert store.read().by_name.keys() == {"b"}


def test_a_change_is_seen_by_the_stamp(store: PinStore) -> None:
    before = prepared(store).stamp()

    store.learn("a", LOGIN)

    assert store.stamp() != before


def _learn_in_turn(statedir: str, number: int) -> bool:
    pins._LOCK_S = 60.0  # type: ignore[misc] # in a process of its own, on a disk that may be slow
    store = PinStore(Path(statedir))
    try:
        store.learn("same", (SALT, digest_of(SALT, b"%d" % number)))
    except PermissionError:
        won = False
    else:
        won = True
    store.learn(f"own-{number}", LOGIN)
    return won


def test_one_of_many_processes_is_first_and_no_pin_is_lost(store: PinStore) -> None:
    statedir = str(prepared(store).path.parent)

    with get_context("spawn").Pool(2) as pool:
        won = pool.starmap(_learn_in_turn, [(statedir, number) for number in range(6)])

    assert won.count(True) == 1
    found = store.read().by_name
    assert found["same"].login == (SALT, digest_of(SALT, b"%d" % won.index(True)))
    assert found.keys() == {"same", *(f"own-{number}" for number in range(6))}


def test_a_reader_never_sees_an_incomplete_file(store: PinStore) -> None:
    prepared(store)

    def write() -> None:
        for number in range(30):
            store.learn(f"n{number}", LOGIN)

    with ThreadPoolExecutor(1) as executor:
        writing = executor.submit(write)
        while not writing.done():
            store.read()
        writing.result()

    assert len(store.read().by_name) == 30


def test_waiting_for_the_lock_has_a_time_limit(
    store: PinStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "_LOCK_S", 0.05)
    with prepared(store)._locked(), pytest.raises(BlockingIOError):
        PinStore(store.path.parent).learn("a", LOGIN)

    assert store.read().by_name == {}


def test_a_pin_that_cannot_be_written_is_not_learned(
    store: PinStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    prepared(store)
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space"):
        store.learn("a", LOGIN)

    assert store.read().by_name == {}
    assert {entry.name for entry in store.path.parent.iterdir()} == {"pins.json", "pins.lock"}


def _pin(**changes: object) -> str:
    pin = {"salt": "00" * 16, "digest": "00" * 32, "since": "x"} | changes
    return json.dumps({"version": 1, "salt": "00" * 16, "pins": {"a": pin}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 200_000,
        '{"version": 2, "salt": "00", "pins": {}}',
        '{"version": 1, "salt": "00", "pins": {}}',
        json.dumps({"version": 1, "salt": "00" * 16, "pins": []}),
        json.dumps({"version": 1, "salt": "00" * 16, "pins": {"a": 1}}),
        json.dumps({"version": 1, "salt": "00" * 16, "pins": {}, "more": 1}),
        _pin(digest="00"),
        _pin(digest="CANARY"),
        _pin(salt="zz" * 16),
        _pin(since=1),
        " " * 2_000_000,
    ],
)
def test_a_damaged_file_is_an_error_and_is_not_overwritten(store: PinStore, text: str) -> None:
    prepared(store).path.write_text(text, encoding="utf-8")

    for use in (store.read, store.prepare, lambda: store.learn("a", LOGIN)):
        with pytest.raises(ConfigError) as caught:
            use()
        assert caught.value.where == str(store.path)
        assert "CANARY" not in "\n".join(caught.value.lines())

    assert store.path.read_text(encoding="utf-8") == text


def test_a_valid_file_is_read(store: PinStore) -> None:
    prepared(store).path.write_text(_pin(), encoding="utf-8")

    assert store.read().by_name["a"].since == "x"


def _make_writable(path: Path) -> None:
    path.chmod(0o620)


def _make_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _open_directory(path: Path) -> None:
    path.parent.chmod(0o777)


@pytest.mark.parametrize("spoil", [_make_writable, _make_link, _make_directory, _open_directory])
def test_a_file_that_others_could_replace_is_refused(
    store: PinStore, spoil: Callable[[Path], None]
) -> None:
    spoil(prepared(store).path)

    with pytest.raises(ConfigError):
        store.read()


def test_a_file_of_another_user_is_refused(
    store: PinStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(store)
    if os.geteuid() == 0:
        os.chown(store.path, 65534, 65534)
    else:  # an ordinary user cannot give files away, but may be taken for somebody else
        monkeypatch.setattr(os, "geteuid", lambda: 65533)

    with pytest.raises(ConfigError, match="another user"):
        store.read()
