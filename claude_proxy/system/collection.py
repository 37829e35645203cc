"""Garbage collection around a start: none while modules are imported, and none of them later.

An import makes tens of thousands of objects that stay, and each collection looks at all of them: a
twelfth of a start. Later, a collection of what was imported would only delay those who wait.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Collect nothing in this context, up to a `spare_what_exists` in it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def spare_what_exists() -> None:
    """Never look at what exists now, and collect from here on."""
    gc.freeze()
    gc.enable()
