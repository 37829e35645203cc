"""A call that finds no free file descriptor is reported as that, whatever it was to open."""

import errno

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.system import file_shortage


def explained(number: int, *, visible: bool = True) -> ClaudeProxyError | None:
    """Return what is shown for an error that blames something else."""
    blaming = ClaudeProxyError("this was replaced", where="/etc/services")
    blaming.__context__ = OSError(number, "any")
    blaming.__cause__ = blaming.__context__ if visible else None
    return file_shortage.explained(blaming)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("visible", [True, False])
def test_an_error_with_a_shortage_behind_it_is_the_shortage(number: int, *, visible: bool) -> None:
    shown = explained(number, visible=visible)

    assert shown is not None
    assert shown.what.startswith("too few files may be open")
    assert shown.where is not None
    assert "services" not in shown.where
    assert shown.fix is not None
    assert "ulimit -n" in shown.fix


def test_a_bare_shortage_is_explained() -> None:
    assert file_shortage.explained(OSError(errno.EMFILE, "any")) is not None


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOSPC])
def test_any_other_error_stays_what_it_is(number: int) -> None:
    assert explained(number) is None


def test_errors_that_name_each_other_have_an_end() -> None:
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one

    assert file_shortage.explained(one) is None
