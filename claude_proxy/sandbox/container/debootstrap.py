"""Base images without an image registry: a Debian made by debootstrap or mmdebstrap, and imported.

Laws kept: fail closed; every exit is gated. The program runs in the closed network of a build, in
process and mount namespaces that end with it. The packages are checked by Debian's own signatures;
without the keyring for that, nothing is made.
"""

import os
import shutil
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container.plan.debootstrap_words import (
    archive_words,
    debootstrap_words,
    mmdebstrap_words,
    refuse_odd_suite,
)
from claude_proxy.sandbox.container.workbench import Workbench

INSTALL = "install it: apt install debootstrap debian-archive-keyring"

_ROOT = "root"
_ARCHIVE = "root.tar"
_IMPORT_S = 600.0


def base_image(bench: Workbench, suite: str, mirror: str | None) -> str:
    """Make a root file system of Debian and import it; return the id of the image.

    ClaudeProxyError if the program is missing or fails.
    """
    refuse_odd_suite(suite)
    archive = bench.work.path / _ARCHIVE
    steps = _steps(bench, suite, mirror, archive)
    for words in steps:
        code = bench.run(words, {"LC_ALL": "C.UTF-8", "PATH": _path(bench)})
        if code:
            raise ClaudeProxyError(
                f"{Path(words[0]).name} failed (exit code {code})",
                where=str(bench.work.log),
                fix="see its last lines; --mirror URL chooses the archive, and --address allows a "
                "private address of it",
            )
    said = bench.engine.call("import", "--quiet", str(archive), timeout_s=_IMPORT_S)
    archive.unlink()
    return said.decode("ascii", "replace").strip().removeprefix("sha256:")


def _path(bench: Workbench) -> str:
    return bench.engine.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def _steps(bench: Workbench, suite: str, mirror: str | None, archive: Path) -> list[list[str]]:
    """Return the command lines that make the archive of a root file system."""
    if (found := shutil.which("mmdebstrap", path=_path(bench))) is not None:
        return [mmdebstrap_words(found, suite, archive, mirror)]
    found = shutil.which("debootstrap", path=_path(bench))
    if found is None:
        raise ClaudeProxyError(
            "debootstrap is not installed, which makes the base without an image registry",
            where="--from-debootstrap",
            fix=f"{INSTALL}; or name an image with --base",
        )
    if bench.rootless:
        raise ClaudeProxyError(
            "debootstrap makes devices, which only root may",
            where="--from-debootstrap",
            fix="install mmdebstrap, which needs none: apt install mmdebstrap; or build as root "
            "and hand the image over: podman save TAG | podman load",
        )
    root = bench.work.path / _ROOT
    return [debootstrap_words(found, suite, root, mirror), archive_words(root, archive)]
