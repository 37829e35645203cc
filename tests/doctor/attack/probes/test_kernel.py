"""Kernel probes see what no filter and no missing capability denies."""

from tests.doctor.cage import (
    got_through,
    outcomes,
    run_probe,
    weak,
)


def test_calls_that_a_filter_would_deny_are_reported_without_one() -> None:
    """Two or three of each, as kernels differ in what they know."""
    assert "io_uring_setup" in got_through(run_probe("io-uring", around=weak()))
    assert "the user's keyring" in got_through(run_probe("keyring", around=weak()))
    assert "user + network" in " ".join(got_through(run_probe("nested-namespaces", around=weak())))
    assert "stopped" in outcomes(run_probe("foreign-calls", around=weak()))
    run_probe("other-families", around=weak())
    run_probe("vsock", around=weak(), canaries={"vsock": 1})


def test_calls_that_capabilities_allow_are_reported_if_they_are_kept() -> None:
    apart = ("--unshare-pid", "--unshare-uts", "--unshare-ipc", "--cap-add", "ALL")
    around = weak("--unshare-user", "--uid", "0", "--gid", "0", *apart)

    assert "a tmpfs" in got_through(run_probe("mounts", around=around))
    assert "sethostname" in got_through(run_probe("kernel-interfaces", around=around))


def test_on_other_architectures_the_calls_of_x86_are_reported_as_not_tried() -> None:
    tries = run_probe("foreign-calls", change="kernel.platform.machine = lambda: 'aarch64'")

    assert [saw for _, _, _, saw in tries] == ["not tried on aarch64"]
