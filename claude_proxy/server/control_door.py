"""Control door: the socket on which the owner of a running proxy asks it, made once it serves.

What answers is imported when the first question comes: most proxies are never asked. Keeps "the
sandbox cannot move its own wall": the socket is in a directory that only the owner can enter and no
sandbox shows. A proxy that cannot have one warns and serves: its walls do not depend on it.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from claude_proxy.config.settings import InheritedListen, RunIdentity, Settings
from claude_proxy.control import places
from claude_proxy.control.places import Place
from claude_proxy.errors import ConfigError
from claude_proxy.server.listening_sockets import OpenListener
from claude_proxy.system.runs import shown_name

if TYPE_CHECKING:
    # Imported when they are needed: `app` imports this module before there is an engine.
    from claude_proxy.server.control_server import ControlServer
    from claude_proxy.server.prepared import Prepared

logger = logging.getLogger(__name__)

_NAME_BOUND = 32

type MakeServer = Callable[[], "ControlServer"]


def claim(settings: Settings, listening: tuple[OpenListener, ...]) -> Place | None:
    """Return the place of this proxy; None if it has none, or none can be made."""
    if settings.runs is None:
        return None
    try:
        place = places.claim(settings.runs, _name_of(settings, listening))
    except (OSError, ConfigError) as error:
        _warn(error)
        return None
    try:
        place.write(_facts_of(place, settings, listening))
    except OSError as error:
        _warn(error)
        place.remove()
        return None
    return place


def _warn(error: Exception) -> None:
    if isinstance(error, ConfigError):
        text = "; ".join(" ".join(line.split()).removeprefix("error: ") for line in error.lines())
    else:
        text = str(error).partition("] ")[2] or str(error)
    logger.warning("this proxy cannot be asked while it runs (claude-proxy status): %s", text)


class ControlDoor:
    """The control socket of one worker, which waits for the first question."""

    def __init__(self, place: Place, worker: int, make: MakeServer, *, owns: bool) -> None:
        """Listen; `make` is called when somebody connects. OSError if it cannot listen.

        `owns`: the place is this process's alone, which removes it.
        """
        import asyncio  # noqa: PLC0415 - `app` imports this module before there is an engine

        self._place = place if owns else None
        self._make = make
        self._sock = place.listen(worker)
        self._server: ControlServer | None = None
        self._serving: object = None  # kept, as a task that nobody holds may vanish
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._open)

    def _open(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        try:
            self._server = self._make()
            self._serving = self._loop.create_task(self._server.serve(self._sock))
        except Exception:
            logger.exception("the control socket cannot be served")
            self._sock.close()

    def close(self) -> None:
        """Answer no more, and remove what nobody else has."""
        if self._server is None:
            with contextlib.suppress(OSError, ValueError):
                self._loop.remove_reader(self._sock.fileno())
        else:
            self._server.close()
        self._sock.close()
        if self._place is not None:
            self._place.remove()


def open_door(prepared: "Prepared", make: MakeServer) -> ControlDoor | None:
    """Return the door of this worker; None if it has none, of which the owner is warned."""
    settings, owns = prepared.settings, prepared.place is None
    place = prepared.place or claim(settings, prepared.listening)
    if place is None:
        return None
    try:
        return ControlDoor(place, prepared.slot.number, make, owns=owns)
    except OSError as error:
        _warn(error)
        if owns:
            place.remove()
        return None


def _run_of(settings: Settings) -> RunIdentity | None:
    runs = [one.run for one in settings.listen if isinstance(one, InheritedListen)]
    return next((run for run in runs if run is not None), None)


def _name_of(settings: Settings, listening: tuple[OpenListener, ...]) -> str:
    """Return a name: of the run, or by the port or the file of the first listener."""
    run = _run_of(settings)
    if run is not None:
        return run.name
    kind = "proxy" if settings.listen else "gateway"
    first = listening[0]
    if first.address is not None:
        return f"{kind}-{first.address.port}"
    stem = first.url.rpartition("/")[2].removesuffix(".sock")
    shown = shown_name(stem).replace("?", "_").lstrip(".-")[:_NAME_BOUND] or "socket"
    return f"{kind}-{shown}"


def _facts_of(place: Place, settings: Settings, listening: tuple[OpenListener, ...]) -> bytes:
    # Not at the top: only who asks needs it.
    from claude_proxy.control import protocol  # noqa: PLC0415
    from claude_proxy.control.protocol import ProxyFacts  # noqa: PLC0415

    run = _run_of(settings)
    kind = "serve" if settings.listen else "gateway"
    if run is not None:
        kind = "container" if run.is_container else "run"
    return protocol.encode_facts(
        ProxyFacts(
            name=place.name,
            kind=kind,
            pid=place.owner,
            started=time.time(),
            workers=settings.workers,
            run="" if run is None else run.name,
            program="" if run is None else run.program,
            project="" if run is None else run.project,
            listens=tuple(one.url for one in listening),
            statedir=str(settings.statedir),
            confdir=str(settings.confdir),
        )
    )
