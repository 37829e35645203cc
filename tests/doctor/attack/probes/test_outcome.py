"""An error shows what stopped a try, or that nothing did."""

import errno
import signal

import pytest

from claude_proxy.doctor.attack.probes import outcome
from claude_proxy.doctor.attack.probes.outcome import attempt, in_child, refused


@pytest.mark.parametrize(
    ("code", "by"),
    [
        (errno.ENETUNREACH, "namespace"),
        (errno.ENOENT, "file system"),
        (errno.EPERM, "capabilities"),
        (errno.EINVAL, "kernel"),
        (errno.ENOSYS, "kernel"),
    ],
)
def test_an_error_tells_what_stopped_the_try(code: int, by: str) -> None:
    found = refused("a try", OSError(code, "x"))

    assert (found.outcome, found.by, found.saw) == ("stopped", by, errno.errorcode[code])


def test_a_denial_is_attributed_to_the_filter_only_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denied = OSError(errno.EPERM, "x")
    without = refused("a try", denied, filtered=True)
    monkeypatch.setattr(outcome, "is_filtered", lambda: True)

    assert (without.by, refused("a try", denied, filtered=True).by) == ("capabilities", "seccomp")
    assert refused("a try", denied, denied="file system").by == "file system"


def test_a_try_with_an_error_of_the_probe_is_no_denial() -> None:
    with pytest.raises(RuntimeError, match="EFAULT"):
        refused("a try", OSError(errno.EFAULT, "x"))


def test_a_try_without_an_answer_was_not_stopped() -> None:
    def silent() -> None:
        raise TimeoutError

    assert attempt("a try", silent).outcome == "through"
    assert attempt("a try", lambda: "an answer").saw == "an answer"


def test_a_try_in_a_child_process_reports_how_it_ended() -> None:
    def killed() -> None:
        signal.raise_signal(signal.SIGSYS)

    def denied() -> None:
        raise PermissionError(errno.EPERM, "x")

    assert in_child("a try", lambda: None).outcome == "through"
    assert (in_child("a try", killed).by, in_child("a try", killed).saw) == ("seccomp", "SIGSYS")
    assert in_child("a try", denied).saw == "EPERM"


def test_an_error_of_the_probe_in_a_child_process_is_no_denial(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RuntimeError, match="a try"):
        in_child("a try", lambda: int("x"))

    capfd.readouterr()


def test_a_file_that_cannot_be_read_holds_nothing() -> None:
    assert outcome.read("/nonexistent") == b""
