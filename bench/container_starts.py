"""Measures how much longer a container takes with its proxy than one of the plain engine."""

import io
import os
import shutil
import statistics
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.loads import LoadError, watched
from bench.measurements import Measurement, Row
from bench.proxies import ClaudeProxy, Direct, Proxy, Running, Sandboxed
from bench.starts import again, until_ended

IMAGE = "claude-proxy-bench"  # busybox alone

_PLAIN: list[str | Path] = ["podman", "run", "--rm", "--network", "none", IMAGE, "true"]
_OF_PODMAN = ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "XDG_RUNTIME_DIR")


@dataclass(frozen=True, slots=True)
class StartOfContainer(Measurement):
    """How long `true` takes in a container that removes itself: podman's own, and one of ours.

    Each of ours is beside one of plain podman, so that both meet the same noise.
    """

    needs_running: bool = False

    def applies_to(self, proxy: Proxy) -> bool:
        """Need podman, and a busybox to make an image of."""
        tools = shutil.which("podman") is not None and shutil.which("busybox") is not None
        return tools and isinstance(proxy, (Direct, ClaudeProxy))

    def take(self, proxy: Proxy, running: Running, secs: float) -> dict[str, Any]:
        """Run it again and again, once without being measured: that one looks at the image."""
        del running
        how = _contained(proxy)
        if how is None:
            return {"count": 0, "errors": 0}
        _make_image()
        project = proxy.place.directory / "project"
        project.mkdir(exist_ok=True)
        until_ended(how, project)
        if isinstance(proxy, Direct):
            return watched(None, lambda: again(lambda: until_ended(how, project), secs))
        more: list[float] = []

        def beside() -> tuple[float, float]:
            plain_s, _ = until_ended(Sandboxed(_PLAIN), project)
            took_s, cpu_s = until_ended(how, project)
            more.append(took_s - plain_s)
            return took_s, cpu_s

        row = watched(None, lambda: again(beside, secs))
        return row | {"more_ms": round(statistics.median(more) * 1e3, 1)}


def _contained(proxy: Proxy) -> Sandboxed | None:
    if isinstance(proxy, Direct):
        return Sandboxed(_PLAIN)
    how = proxy.sandboxed(("true",))
    if how is None:
        return None
    at = how.argv.index("run")
    words: list[str | Path] = [
        *how.argv[:at],
        "container",
        "run",
        "--image",
        IMAGE,
        "--rm",
        *how.argv[at + 1 :],
    ]
    own = {name: os.environ[name] for name in _OF_PODMAN if name in os.environ}
    return Sandboxed(words, {**(how.environment or {}), **own})


def _make_image() -> None:
    """Import an image of one static program, unless there is one."""
    if subprocess.run(["podman", "image", "exists", IMAGE], check=False).returncode == 0:
        return
    busybox = Path(shutil.which("busybox") or "").resolve()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(busybox, arcname="bin/busybox")
        link = tarfile.TarInfo("bin/true")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
    made = subprocess.run(
        ["podman", "import", "--quiet", "-", IMAGE],
        input=archive.getvalue(),
        capture_output=True,
        check=False,
    )
    if made.returncode:
        raise LoadError(f"podman makes no image: {made.stderr.decode().strip()}")


def _median_ms(row: Row) -> float:
    return float(row["median_ms"])


CONTAINER_STARTS: tuple[Measurement, ...] = (
    StartOfContainer(
        "start-container",
        "`true` in a podman container, from start to end; without a proxy: plain podman",
        "ms",
        _median_ms,
        more_is_better=False,
    ),
)
