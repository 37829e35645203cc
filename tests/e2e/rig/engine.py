"""A storage of images and containers that only tests use, for `claude-proxy container`.

What this machine needs (a runtime, a driver, lowered limits) is in configuration files that the
tests name by variables; none of it is in the product. Images are made here from the host's files,
as nothing can be fetched.
"""

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

_EMPTY = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "lib", "lib64", "usr/bin")
APPLETS = (
    *("sh", "cat", "id", "ip", "hostname", "iptables", "nslookup", "sleep", "env", "ls", "true"),
    *("touch", "mkdir", "rm", "mount", "ping", "nc", "wc", "grep", "stat", "kill", "stty", "tty"),
    *("readlink", "ps", "sort", "tr", "head", "cut", "chmod", "mv", "test", "date", "echo"),
)
_CONTAINERS = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""
_LIBRARY = re.compile(r"(?:=> )?(/[^ ]+) \(0x")


class EngineStorage:
    """The images and containers of one test module."""

    def __init__(self, podman: str, *, owner: int | None = None) -> None:
        # Not pytest's own directory: podman wants a path of at most 50 characters.
        self.directory = Path(tempfile.mkdtemp(prefix="engine-"))
        self.podman = podman
        (self.directory / "containers.conf").write_text(_CONTAINERS)
        (self.directory / "storage.conf").write_text(
            "[storage]\n"
            'driver = "vfs"\n'
            f'graphroot = "{self.directory}/root"\nrunroot = "{self.directory}/run"\n'
            f'rootless_storage_path = "{self.directory}/root"\n'
        )
        if owner is not None:
            os.chown(self.directory, owner, owner)

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which podman finds this storage."""
        return {
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.directory / "storage.conf"),
        }

    def call(self, *words: str, given: bytes | None = None) -> str:
        """Run podman, which must succeed."""
        done = subprocess.run(
            [self.podman, *words],
            input=given,
            env={**os.environ, **self.variables},
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def add(self, image: bytes, name: str, *changes: str) -> None:
        """Import an image."""
        options = [word for change in changes for word in ("--change", change)]
        self.call("import", "--quiet", *options, "-", name, given=image)

    def close(self) -> None:
        """Remove all containers and images."""
        try:
            self.call("rm", "--all", "--force", "--time", "0")
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.directory, ignore_errors=True)


def image_of(
    busybox: str | None,
    programs: Iterable[str] = (),
    files: Sequence[tuple[str, bytes]] = (),
) -> bytes:
    """Return a root file system: busybox, and programs of this machine with their libraries.

    A program that is not below /usr or /bin is at /usr/local/bin in the image.
    """
    archive, seen = io.BytesIO(), set[str]()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in _EMPTY:
            _add_directory(tar, name, seen)
        if busybox is not None:
            tar.add(Path(busybox).resolve(), arcname="bin/busybox")
            for applet in APPLETS:
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for program in programs:
            for path in (program, *_libraries_of(program)):
                if path not in seen:
                    seen.add(path)
                    place = _place_of(path).lstrip("/")
                    _add_directory(tar, str(Path(place).parent), seen)
                    tar.add(os.path.realpath(path), arcname=place)
        for path, content in files:
            _add_directory(tar, str(Path(path).parent).lstrip("/"), seen)
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def _place_of(path: str) -> str:
    """Return where a file of this machine is in an image, which has none of its homes."""
    if Path(path).parts[1] in {"bin", "lib", "lib64", "sbin", "usr"}:
        return path
    return f"/usr/local/bin/{Path(path).name}"


def _add_directory(tar: tarfile.TarFile, path: str, seen: set[str]) -> None:
    """Add a directory with all above it: docker keeps one that is not named from other users."""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[:count])
        if name and name not in seen:
            seen.add(name)
            directory = tarfile.TarInfo(name)
            directory.type = tarfile.DIRTYPE
            directory.mode = 0o1777 if name == "tmp" else 0o755
            tar.addfile(directory)


def _libraries_of(program: str) -> list[str]:
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return _LIBRARY.findall(said)
