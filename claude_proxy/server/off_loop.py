"""Work off the event loop: a long computation on a thread that leaves the loop its turns.

A thread that computes and the loop share one interpreter. So the work is interrupted every half
millisecond, and no garbage collection, which stops both, walks through what it makes.
"""

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator

# The default is ten times as long, and a request takes many turns of the loop.
_TURN_S = 0.0005


async def compute[Result](work: Callable[[], Result]) -> Result:
    """Return the result of a long computation, done on a daemon thread.

    One at a time: what it sets for the interpreter is not counted.
    """

    def in_short_turns() -> Result:
        with _in_short_turns():
            return work()

    return await wait_for(in_short_turns)


async def wait_for[Result](work: Callable[[], Result]) -> Result:
    """Return the result of `work`, done on a daemon thread, which does not hold up the end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001 - raised again where it is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="off-loop", daemon=True).start()
    return await done


@contextlib.contextmanager
def _in_short_turns() -> Iterator[None]:
    turn_s, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(_TURN_S)
    gc.disable()
    try:
        yield
    finally:
        # Together these count what was made as old without a look at it: the next collection of
        # young objects would be a long one.
        gc.freeze()
        gc.unfreeze()
        if collects:
            gc.enable()
        sys.setswitchinterval(turn_s)
