"""Way out that is mounted into containers: a directory with the proxy's socket, a relay and the CA.

For containers that somebody else makes (compose, a dev container, quadlet) from the files of
`container init`. Law kept: what is mounted is complete or not there, and holds no secret: the
certificate of the CA, never its key.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import lent_python, store
from claude_proxy.sandbox.container.files import way_out as names
from claude_proxy.sandbox.plan.environment import BUNDLE, CERTIFICATE
from claude_proxy.system import file_replacement
from claude_proxy.trust.certificate_authority import BUNDLE_FILE, CertificateAuthority

_PATIENCE_S = 5.0
_LOCK = ".way-out.lock"  # in the directory of the state


def directory_of(home: Path) -> Path:
    """Return the directory that the files of `container init` mount."""
    return home / names.BELOW_HOME


def prepare(directory: Path, *, cadir: Path, statedir: Path) -> None:
    """Put everything but the socket into the directory; ClaudeProxyError if that is impossible.

    Of several commands that do it at the same time, one waits for the other.
    """
    store.make_directory(statedir)
    with _lock_in(statedir):
        _prepare(directory, cadir, statedir)


@contextmanager
def _lock_in(statedir: Path) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(statedir / _LOCK, flags, 0o600)
    except OSError as error:
        raise ClaudeProxyError(
            f"the lock of the way out cannot be opened: {(error.strerror or '').lower()}",
            where=str(statedir / _LOCK),
            fix="remove it, if it is no plain file of yours",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare(directory: Path, cadir: Path, statedir: Path) -> None:
    lent = lent_python.lend(statedir)
    if not lent.has_loader:
        raise ClaudeProxyError(
            "this Python is static, and the files start one by its loader",
            where=str(lent.directory),
            fix="install claude-proxy with a Python that has shared libraries",
        )
    try:
        # Users of containers have other numbers. They may enter; the proxy serves whom it names.
        directory.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        for place in (directory, directory / names.TRUST):
            place.mkdir(mode=0o755, exist_ok=True)
            place.chmod(0o755)
        _lay_runtime(directory, lent)
        authority = CertificateAuthority.load_or_create(cadir)
        authority.write_bundle()
        for name, source in (
            (CERTIFICATE.name, authority.certificate_path),
            (BUNDLE.name, cadir / BUNDLE_FILE),
        ):
            _replace(directory / names.TRUST / name, source.read_bytes())
    except OSError as error:
        raise ClaudeProxyError(
            f"the way out cannot be prepared: {(error.strerror or '').lower()}",
            where=error.filename or str(directory),
            fix="check the owner of the directory and the free space",
        ) from error


def _replace(path: Path, data: bytes) -> None:
    with suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return
    file_replacement.replace(path, data, 0o644)


def _lay_runtime(directory: Path, lent: lent_python.LentPython) -> None:
    """Copy the runtime, under a name that tells its version, and lead the usual name there."""
    name = f".{names.RUNTIME}-{lent.directory.name}"
    copy, usual = directory / name, directory / names.RUNTIME
    if not copy.is_dir():
        unfinished = directory / f"{name}.{os.getpid()}"
        shutil.copytree(lent.directory, unfinished, symlinks=True)
        (unfinished / names.PYTHON).symlink_to(f"python{lent.version}")
        unfinished.chmod(0o755)
        unfinished.rename(copy)
    if not usual.is_symlink() or usual.readlink() != Path(name):
        link = directory / f".{names.RUNTIME}.{os.getpid()}"
        link.symlink_to(name)
        link.replace(usual)
    for old in directory.glob(f".{names.RUNTIME}-*"):
        if old != copy:  # a container that still runs from it has its files open
            shutil.rmtree(old, ignore_errors=True)


def check_served(directory: Path) -> None:
    """Raise ClaudeProxyError unless a proxy listens there."""
    path = directory / names.SOCKET
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_PATIENCE_S)
            sock.connect(str(path))
    except OSError as error:
        raise ClaudeProxyError(
            f"no proxy serves the way out of containers: {(error.strerror or '').lower()}",
            where=str(path),
            fix="start it, and let it run: claude-proxy container way-out",
        ) from error
