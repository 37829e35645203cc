"""Of two processes, one holds the lock of a container's name, and the other learns of it."""

import os
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import name_lock, store


def can_be_taken(statedir: Path, name: str) -> bool:
    """Try it in another process, which inherits nothing of the lock."""
    child = os.fork()
    if child == 0:
        name_lock._held.clear()
        try:
            with name_lock.held(statedir, name):
                os._exit(0)
        except ClaudeProxyError as error:
            os._exit(1 if "right now" in error.what else 2)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, 1}
    return code == 0


def test_a_name_is_locked_for_other_processes_until_it_is_left(tmp_path: Path) -> None:
    with name_lock.held(tmp_path, "web"):
        assert not can_be_taken(tmp_path, "web")
        assert can_be_taken(tmp_path, "api")
    assert can_be_taken(tmp_path, "web")


def test_a_process_that_holds_it_may_take_it_again(tmp_path: Path) -> None:
    with name_lock.held(tmp_path, "web"):
        with name_lock.held(tmp_path, "web"):
            pass
        assert not can_be_taken(tmp_path, "web")


def test_it_can_be_given_back_early(tmp_path: Path) -> None:
    with name_lock.held(tmp_path, "web"):
        name_lock.release(tmp_path, "web")
        assert can_be_taken(tmp_path, "web")


def test_an_error_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), name_lock.held(tmp_path, "web"):
        raise KeyError
    assert can_be_taken(tmp_path, "web")


def test_a_lock_is_no_container(tmp_path: Path) -> None:
    with name_lock.held(tmp_path, "web"):
        assert store.names(tmp_path) == []
