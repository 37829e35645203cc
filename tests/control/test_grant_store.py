"""Laws of the store of grants: nothing is spent twice, and what has ended stays so."""

import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.control import grant_store
from claude_proxy.control.grant_store import Draft, GrantStore
from claude_proxy.errors import ConfigError
from claude_proxy.policy.grants import SECOND_NS, End, Grant, GrantedRun, GrantKind, Moment
from tests.policy.cases import rule

HOUR_NS = 3600 * SECOND_NS
NOW = Moment(1_000_000 * HOUR_NS, 5 * HOUR_NS, "boot-1")


def opened(tmp_path: Path) -> GrantStore:
    store = GrantStore.open(tmp_path, make=True)
    assert store is not None
    return store


def draft(**changes: Any) -> Draft:
    return replace(Draft((rule("a.test"),), "alice", lasts_ns=HOUR_NS), **changes)


def standing(store: GrantStore, now: Moment = NOW) -> list[Grant]:
    return store.standing(now)


def test_without_a_store_nothing_is_made(tmp_path: Path) -> None:
    assert GrantStore.open(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_grant_is_kept_as_it_was_made(tmp_path: Path) -> None:
    run = GrantedRun("build", "build.1")
    with opened(tmp_path) as store:
        made = store.make(draft(uses=3, run=run, project="/code", reason="docs"), NOW)
        opens = store.make(draft(kind=GrantKind.OPEN), NOW)

    with opened(tmp_path) as again:
        first, second = standing(again)
    assert (first.number, second.number) == (1, 2)
    assert replace(first, rules=made.rules) == made
    assert second.kind is opens.kind
    assert str(first.rules[0].source) == "grant 1"


def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    statedir = tmp_path / "deep" / "state"
    with opened(statedir) as store:
        store.make(draft(), NOW)
        modes = {path.name: path.stat().st_mode & 0o777 for path in statedir.iterdir()}

    assert set(modes.values()) == {0o600}
    assert statedir.stat().st_mode & 0o777 == 0o700


def test_a_grant_without_a_bound_is_not_stored(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with pytest.raises(ValueError, match="needs an end"):
            store.make(draft(lasts_ns=None), NOW)
        assert standing(store) == []


def test_each_use_is_taken_once(tmp_path: Path) -> None:
    with opened(tmp_path) as store, opened(tmp_path) as other:
        store.make(draft(uses=2), NOW)

        assert store.take_use(1, NOW) == 1
        assert [grant.uses_left for grant in standing(other)] == [1]
        assert other.take_use(1, NOW) == 0
        assert store.take_use(1, NOW) is None
        assert standing(store) == []
        found = other.get(1)
    assert found is not None
    assert found.ended is End.USES


def test_many_at_once_take_no_use_twice(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.make(draft(uses=7), NOW)

    def take(_: int) -> int:
        with opened(tmp_path) as one:
            return sum(one.take_use(1, NOW) is not None for _ in range(5))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 7


TAKER = """
import sys
from pathlib import Path
from claude_proxy.control import present
from claude_proxy.control.grant_store import GrantStore
with GrantStore.open(Path(sys.argv[1])) as store:
    while (left := store.take_use(1, present.now())) is not None:
        print(left, flush=True)
"""


def test_a_process_that_is_killed_gives_no_use_back(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.make(draft(uses=10_000), NOW)
    taken: list[int] = []
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", TAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as taker:
            assert taker.stdout is not None
            taken += [int(taker.stdout.readline()) for _ in range(20)]
            taker.send_signal(signal.SIGKILL)
            taken += [int(line) for line in taker.stdout if line.endswith("\n")]

    assert max(Counter(taken).values()) == 1
    with opened(tmp_path) as store:
        (left,) = standing(store)
    assert (left.uses_left or 0) <= min(taken)


def test_what_has_ended_stays_ended_and_is_ended_once(tmp_path: Path) -> None:
    with opened(tmp_path) as store, opened(tmp_path) as other:
        store.make(draft(uses=1), NOW)

        assert store.end(1, End.REVOKED, NOW, "alice")
        assert not other.end(1, End.TIME, NOW)
        assert other.take_use(1, NOW) is None
        found = other.get(1)
    assert found is not None
    assert found.ended is End.REVOKED


def test_what_is_used_up_can_still_be_revoked(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.make(draft(uses=1), NOW)
        store.take_use(1, NOW)

        assert not store.end(1, End.TIME, NOW)
        assert store.end(1, End.REVOKED, NOW)


def test_a_change_by_another_process_is_noticed(tmp_path: Path) -> None:
    with opened(tmp_path) as store, opened(tmp_path) as other:
        before = store.version()
        other.make(draft(), NOW)

        after = store.version()
        assert after != before
        assert store.version() == after


def test_the_rest_of_the_time_counts_after_a_boot(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.make(draft(), NOW)
        later = Moment(NOW.wall_ns + HOUR_NS // 2, 7, "boot-2")

        (found,) = standing(store, later)

        assert found.left_ns(later) == HOUR_NS // 2
        set_back = Moment(later.wall_ns, later.boot_ns + HOUR_NS // 2, "boot-2")
        assert standing(store, set_back)[0].end(set_back) is End.TIME


def test_a_clock_that_was_set_back_over_a_boot_ends_a_grant(tmp_path: Path) -> None:
    seen = Moment(NOW.wall_ns + HOUR_NS // 2, NOW.boot_ns + HOUR_NS // 2, "boot-1")
    with opened(tmp_path) as store:
        store.make(draft(), NOW)
        standing(store, seen)
    with opened(tmp_path) as store:
        earlier = Moment(NOW.wall_ns + HOUR_NS // 4, 7, "boot-2")

        (found,) = standing(store, earlier)

        assert found.end(earlier) is End.CLOCK


def test_no_number_is_given_twice_and_the_file_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grant_store, "_KEPT", 2)
    with opened(tmp_path) as store:
        for number in range(1, 7):
            assert store.make(draft(), NOW).number == number
            store.end(number, End.REVOKED, NOW)
        assert [store.get(number) is not None for number in range(1, 4)] == [False] * 3


def test_there_is_a_bound_to_what_is_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grant_store, "MOST", 2)
    with opened(tmp_path) as store:
        store.make(draft(), NOW)
        store.make(draft(), NOW)
        with pytest.raises(ConfigError, match="already"):
            store.make(draft(), NOW)


def test_a_row_that_cannot_be_read_grants_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.make(draft(), NOW)
        store.make(draft(), NOW)
    raw = sqlite3.connect(tmp_path / grant_store.FILE_NAME)
    with raw:
        raw.execute("UPDATE grant_ SET rules = '[{}]' WHERE number = 1")
    raw.close()

    with opened(tmp_path) as store:
        assert [grant.number for grant in standing(store)] == [2]


def _others_write(path: Path) -> None:
    path.chmod(0o666)


def _is_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _is_no_database(path: Path) -> None:
    path.write_bytes(b"x" * 4096)


def _is_anothers(path: Path) -> None:
    path.unlink()
    raw = sqlite3.connect(path)
    with raw:
        raw.execute("CREATE TABLE t (x)")
    raw.close()
    path.chmod(0o600)


@pytest.mark.parametrize("spoil", [_others_write, _is_a_link, _is_no_database, _is_anothers])
def test_a_store_that_cannot_be_trusted_is_refused(tmp_path: Path, spoil: Any) -> None:
    with opened(tmp_path) as store:
        store.make(draft(), NOW)
    spoil(tmp_path / grant_store.FILE_NAME)

    with pytest.raises(ConfigError) as error:
        GrantStore.open(tmp_path)
    assert error.value.fix


def test_a_store_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.path.rename(tmp_path / "away")
        with pytest.raises(ConfigError, match="nothing is granted"):
            store.version()


def test_a_revoked_grant_that_was_used_up_is_news_once_more(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.make(draft(uses=1), NOW)
        store.make(draft(uses=2), NOW)
        store.take_use(1, NOW)
        assert store.used_up() == [1]
        store.take_news()

        assert store.end(1, End.REVOKED, NOW, "bob")

        (news,) = store.take_news()
        assert (news.grant.ended, news.ended_by) == (End.REVOKED, "bob")
        assert store.used_up() == []
