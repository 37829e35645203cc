"""A home is made once and whole, whatever a run has left in it and however many runs begin."""

import errno
import json
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import agent_home, home_seeds
from claude_proxy.sandbox.agent_home import listed, prepared, reset
from claude_proxy.sandbox.plan.agent_home import directory_of
from claude_proxy.sandbox.plan.model import AgentHome, Seed


class User:
    """A user with settings and a login, and a project."""

    def __init__(self, place: Path) -> None:
        self.statedir = place / "state"
        self.project = place / "project"
        self.project.mkdir()
        self.own = place / "home/.tool"
        (self.own / "skills").mkdir(parents=True)
        (self.own / "skills/a").write_text("skill")
        (self.own / "auth").write_text("LOGIN")
        self.said: list[str] = []

    def home(self, **changes: object) -> AgentHome:
        given = {
            "state": (".tool/", ".tool.json"),
            "seeds": (Seed(".tool/skills", self.own / "skills"),),
            "logins": (Seed(".tool/auth", self.own / "auth"),),
            **changes,
        }
        directory = directory_of(self.statedir, self.project)
        return AgentHome(directory, self.project, **given)  # type: ignore[arg-type]

    def use(self, **changes: object) -> Path:
        """Let a run begin and end; return its directory of the tool."""
        self.said.clear()
        home = self.home(**changes)
        with prepared(home, self.said.append):
            pass
        return home.source_of(".tool/")

    @property
    def login(self) -> Path:
        return self.home().source_of(".tool/") / "auth"

    def renew(self, value: str) -> None:
        """Renew the login as a program does: later, and by renaming."""
        before = (self.own / "auth").stat().st_mtime_ns
        new = self.own / "new"
        new.write_text(value)
        os.utime(new, ns=(before + 10**9, before + 10**9))
        new.rename(self.own / "auth")


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_a_home_is_made_of_the_users_settings_and_login(user: User) -> None:
    kept = user.use()

    assert (kept / "skills/a").read_text() == "skill"
    assert (kept / "auth").read_text() == "LOGIN"
    assert (kept / "auth").stat().st_mode & 0o777 == 0o600
    assert user.home().source_of(".tool.json").read_bytes() == b"{}\n"
    assert user.home().directory.stat().st_mode & 0o777 == 0o700
    assert len(user.said) == 2


def test_what_a_run_has_written_is_there_in_the_next(user: User) -> None:
    kept = user.use()
    (kept / "history").write_text("mine")
    (kept / "skills/a").write_text("changed")
    (user.own / "skills/b").write_text("new")

    user.use()

    assert (kept / "history").read_text() == "mine"
    assert (kept / "skills/a").read_text() == "changed"
    assert not (kept / "skills/b").exists()
    assert user.said == []


def test_an_entry_that_another_profile_keeps_is_added(user: User) -> None:
    user.use(state=(".tool/",))
    (user.home().source_of(".tool/") / "history").write_text("mine")

    user.use()

    assert user.home().source_of(".tool.json").exists()
    assert (user.home().source_of(".tool/") / "history").read_text() == "mine"


# --- logins


def test_a_login_that_the_user_has_renewed_is_copied_again_and_said(user: User) -> None:
    user.use()
    user.renew("RENEWED")

    user.use()

    assert user.login.read_text() == "RENEWED"
    assert "copied in again" in user.said[0]


def test_a_login_that_a_run_has_renewed_since_is_kept(user: User) -> None:
    user.use()
    user.renew("OLDER")
    user.login.write_text("NEWER")
    later = (user.own / "auth").stat().st_mtime_ns + 1
    os.utime(user.login, ns=(later, later))

    user.use()

    assert user.login.read_text() == "NEWER"


def test_a_login_that_a_run_has_removed_stays_removed(user: User) -> None:
    user.use()
    user.login.unlink()

    user.use()

    assert not user.login.exists()


def test_the_copy_of_a_login_is_removed_once_a_credential_is_injected(user: User) -> None:
    user.use()

    user.use(logins=(), withheld=(".tool/auth",))

    assert not user.login.exists()
    assert "was removed" in user.said[0]
    user.use(logins=(), withheld=(".tool/auth",))
    assert user.said == []
    user.use()
    assert user.login.read_text() == "LOGIN"


def test_a_login_that_is_a_link_is_not_copied(user: User) -> None:
    (user.own / "auth").rename(user.own / "real")
    (user.own / "auth").symlink_to("real")

    user.use()

    assert not user.login.exists()


# --- what a run may have left there


def test_a_login_is_never_written_through_a_link(user: User, tmp_path: Path) -> None:
    target = tmp_path / "obeyed"
    target.write_text("kept")
    user.use()
    user.login.unlink()
    user.login.symlink_to(target)
    os.utime(user.login, ns=(0, 0), follow_symlinks=False)
    user.renew("RENEWED")

    user.use()

    assert target.read_text() == "kept"
    assert not user.login.is_symlink()
    assert user.login.read_text() == "RENEWED"


def test_a_login_is_never_written_into_a_directory_behind_a_link(
    user: User, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    deep = (Seed(".tool/deep/auth", user.own / "auth"),)
    kept = user.use(logins=())
    (kept / "deep").symlink_to(outside)

    user.use(logins=deep)
    (outside / "auth").write_text("kept")
    user.use(logins=(), withheld=(".tool/deep/auth",))

    assert (outside / "auth").read_text() == "kept"


def test_a_directory_without_permissions_keeps_no_login_from_being_removed(user: User) -> None:
    kept = user.use()
    kept.chmod(0)

    user.use(logins=(), withheld=(".tool/auth",))

    assert not user.login.exists()


def test_a_directory_in_the_place_of_a_login_is_only_the_runs_loss(user: User) -> None:
    user.use()
    user.login.unlink()
    user.login.mkdir()
    os.utime(user.login, ns=(0, 0))
    user.renew("RENEWED")

    user.use()
    user.use(logins=(), withheld=(".tool/auth",))

    assert user.login.is_dir()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"logins": 1}', "\0" * 100])
def test_a_record_that_is_broken_is_written_again(user: User, text: str) -> None:
    user.use()
    (user.home().directory / "home.json").write_text(text)

    user.use()

    assert json.loads((user.home().directory / "home.json").read_text())["project"]


# --- whole, or not at all


def test_a_full_disk_is_an_error_and_leaves_nothing(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)

    with pytest.raises(ClaudeProxyError, match="no space left on device") as caught:
        user.use()

    assert caught.value.where
    assert "make room" in str(caught.value.fix)
    assert list((user.statedir / "homes").iterdir()) == []


def test_a_home_that_could_not_be_completed_keeps_what_it_had(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = user.use(state=(".tool/",))
    (kept / "history").write_text("mine")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(home_seeds, "write_new", full)
        with pytest.raises(ClaudeProxyError):
            user.use()

    assert (kept / "history").read_text() == "mine"
    assert [path.name for path in user.home().directory.glob(".*")] == []


def test_what_a_killed_run_has_left_unfinished_is_removed(user: User) -> None:
    user.use()
    left = user.home().directory / ".new-0123"
    left.mkdir()
    (left / "half").touch()

    user.use()

    assert not left.exists()


def test_runs_that_begin_at_once_share_one_whole_home(user: User) -> None:
    count, failed, start = 8, [], threading.Barrier(8)
    for number in range(300):
        (user.own / f"skills/{number}").write_text("x" * 100)

    def begin() -> None:
        start.wait()
        try:
            with prepared(user.home(), user.said.append):
                found = len(list((user.home().source_of(".tool/") / "skills").iterdir()))
                assert found == 301
        except BaseException as error:  # noqa: BLE001 - for the test to see
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert len([line for line in user.said if "of its own from now on" in line]) == 1


def test_an_entry_of_another_kind_than_the_profile_says_is_an_error(user: User) -> None:
    user.use(state=(".tool/", ".tool.json"))

    with pytest.raises(ConfigError, match="not what the profile says"):
        user.use(state=(".tool", ".tool.json"), seeds=(), logins=())


def test_a_directory_of_homes_that_others_may_write_to_is_refused(user: User) -> None:
    homes = user.statedir / "homes"
    homes.mkdir(parents=True)
    homes.chmod(0o777)

    with pytest.raises(ConfigError, match="others can write"):
        user.use()


def test_a_home_that_is_a_link_is_refused(user: User, tmp_path: Path) -> None:
    (user.statedir / "homes").mkdir(parents=True, mode=0o700)
    user.home().directory.symlink_to(tmp_path)

    with pytest.raises(ClaudeProxyError):
        user.use()

    assert not (tmp_path / "home.json").exists()


# --- the list, and starting over


def test_the_list_names_each_project_and_says_which_is_gone(user: User) -> None:
    user.use()
    [one] = listed(user.statedir)
    user.project.rmdir()
    [gone] = listed(user.statedir)

    assert (one.project, one.exists, one.in_use) == (str(user.project), True, False)
    assert one.size.size > 0
    assert one.used_s > 0
    assert not gone.exists


def test_the_list_is_empty_without_homes_and_passes_over_what_is_none(user: User) -> None:
    assert listed(user.statedir) == []
    (user.statedir / "homes/none").mkdir(parents=True)
    (user.statedir / "homes/file").touch()
    assert listed(user.statedir) == []


def test_a_reset_home_is_made_again(user: User) -> None:
    kept = user.use()
    (kept / "history").touch()

    assert reset(user.statedir, user.project)

    assert list((user.statedir / "homes").iterdir()) == []
    user.use()
    assert not (kept / "history").exists()
    assert (kept / "skills/a").exists()


def test_what_a_killed_reset_has_left_is_removed_by_the_next(user: User) -> None:
    user.use()
    (user.statedir / "homes/.removed-0123/x").mkdir(parents=True)

    assert reset(user.statedir, user.project)

    assert list((user.statedir / "homes").iterdir()) == []


def test_there_may_be_no_home_to_reset(user: User) -> None:
    assert not reset(user.statedir, user.project)


def test_a_home_in_use_is_listed_as_such_and_not_reset(user: User) -> None:
    with ExitStack() as runs:
        for _ in range(2):
            runs.enter_context(prepared(user.home(), user.said.append))
        [one] = listed(user.statedir)
        with pytest.raises(ConfigError, match="is using"):
            reset(user.statedir, user.project)

    assert one.in_use
    assert reset(user.statedir, user.project)


def test_a_run_that_waits_for_a_reset_gets_a_new_home(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.use()
    opened = agent_home._lock_file
    resets = iter([True])

    def removed_meanwhile(directory: int, name: str) -> object:
        if name == "use.lock" and next(resets, False):
            reset(user.statedir, user.project)
        return opened(directory, name)

    monkeypatch.setattr(agent_home, "_lock_file", removed_meanwhile)

    kept = user.use()

    assert (kept / "skills/a").exists()
