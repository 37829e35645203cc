"""A run's proxy listens in the run's directory, for the run alone."""

import stat
import tempfile
from contextlib import ExitStack
from pathlib import Path

from claude_proxy.config.settings import Settings
from claude_proxy.sandbox import own_proxy
from claude_proxy.sandbox.run_directory import RunDirectory

SETTINGS = Settings(Path("/conf/allowlist.yaml"), Path("/conf"), Path("/state"))


def test_the_socket_is_the_owners_and_is_closed_with_the_run() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="own-") as above,
        RunDirectory.make(("sh",), name="web", above=Path(above) / "runs") as directory,
    ):
        with ExitStack() as stack:
            (listener,) = own_proxy.listen(SETTINGS, directory, stack)

            assert listener.getsockname() == str(directory.socket_path)
            assert stat.S_IMODE(directory.socket_path.stat().st_mode) == 0o600
        assert listener.fileno() == -1
