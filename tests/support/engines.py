"""An engine that takes its time or fails, for proxies in processes of their own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

HOLDS = "os.read(os.open(hold, os.O_RDONLY), 1)"  # until `Engine.release`


class Engine:
    """What proxy processes import before the real mitmproxy, in its place."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._hold = directory / "hold"
        os.mkfifo(self._hold)

    @contextmanager
    def that(self, does: str) -> Iterator[None]:
        """Have `does` done by the import of mitmproxy, in proxies that this process starts."""
        self.write(does)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(self.directory)
            yield

    def write(self, does: str) -> None:
        """Have `does` done by the import of mitmproxy where the directory is on the path."""
        package = self.directory / "mitmproxy"
        package.mkdir()
        real = find_spec("mitmproxy")
        assert real is not None
        (package / "__init__.py").write_text(
            f"import os\nhold = {str(self._hold)!r}\n{does}\n"
            f"__path__[:] = {real.submodule_search_locations!r}\n"
        )

    def release(self) -> None:
        """Let an import go on that reads the FIFO `hold`."""
        self._hold.write_bytes(b"\n")
