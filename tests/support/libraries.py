"""Shared libraries that some tests need, and skip without."""

import ctypes

import pytest


def need_libseccomp() -> None:
    """Skip the test if libseccomp is not installed."""
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp2 is not installed")
