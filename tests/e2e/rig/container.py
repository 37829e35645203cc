"""Runs real podman containers that have no network, from an image of one static binary.

The image is made here, as nothing can be fetched; podman's own storage is in a directory of the
test's, so nothing of it stays.
"""

import io
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]

# What the host's Python and curl need; the image itself has only busybox.
_SYSTEM = ("/usr", "/lib", "/lib64")
_APPLETS = ("sh", "cat", "id", "ip", "hostname", "iptables", "nslookup", "sleep", "wget", "env")
_EMPTY = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "lib", "lib64", "work")


class Podman:
    """One podman storage with one image."""

    def __init__(self, directory: Path, *, podman: str, busybox: str) -> None:
        self._podman = [
            *(podman, "--root", str(directory / "root"), "--runroot", str(directory / "run")),
            *("--tmpdir", str(directory / "tmp"), "--storage-driver", "vfs"),
            *("--cgroup-manager", "cgroupfs", "--runtime", "runc"),
        ]
        imported = subprocess.run(
            [*self._podman, "import", "--quiet", "-", "box"],
            input=_image(Path(busybox)),
            capture_output=True,
            check=False,
        )
        assert imported.returncode == 0, imported.stderr.decode()

    def argv(self, command: Sequence[str], *mounts: tuple[Path, str]) -> list[str]:
        """Return the command line of a container without network that sees `mounts`."""
        prefixes = dict.fromkeys((sys.prefix, sys.base_prefix, str(REPOSITORY)))
        shown = [(path, f"{path}:ro") for path in (*_SYSTEM, *prefixes)]
        shown += [(str(source), target) for source, target in mounts]
        return [
            *(*self._podman, "run", "--rm", "--interactive", "--network", "none"),
            # The defaults are higher than some machines allow.
            *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
            *(word for source, target in shown for word in ("--volume", f"{source}:{target}")),
            *("--env", f"PYTHONPATH={REPOSITORY}", "box", *command),
        ]


def _image(busybox: Path) -> bytes:
    """Return a root file system as a tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in _EMPTY:
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
        tar.add(busybox.resolve(), arcname="bin/busybox")
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return archive.getvalue()
