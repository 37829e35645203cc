"""Entry point of the program and of `python -m claude_proxy`: no Ctrl-C ends in a traceback.

Until the command line is there to handle it, and again once it has ended, SIGINT has its default
action, and a shell sees 130. An older Python cannot even read the other modules, so it is named
before they are imported.
"""

# Not `signal`, whose import takes longer than anything else here.
import _signal as signal  # type: ignore[import-not-found] # which typeshed does not describe
import gc
import os
import sys

OLDEST = (3, 12)
_USAGE = 2
_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports


def run() -> int:
    """Run the command line; return its exit code."""
    # Where it is ignored (nohup, `&` in a script), it stays so.
    has_handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if has_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:2]))
        needed = ".".join(map(str, OLDEST))
        sys.stderr.write(
            f"claude-proxy: error: Python {needed} or newer is needed, and this is {found}\n"
            f"  where: {sys.executable}\n"
            f"  fix:   run it with a newer one, such as python{needed}; in a clone, `make run` "
            "finds or fetches one\n"
        )
        return _USAGE
    # What is imported stays. The command line has it collect again, once it knows the command.
    gc.disable()
    # Older ones cannot read these.
    from claude_proxy.cli.main import main  # noqa: PLC0415
    from claude_proxy.system import lost_interrupts  # noqa: PLC0415

    lost_interrupts.raise_again()
    try:
        if has_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main()
    except KeyboardInterrupt:  # a second one, while the first was handled
        code = _INTERRUPTED
    finally:
        if has_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    _leave(code)
    return code


def _leave(code: int) -> None:
    """End the process without the interpreter's own end, which takes 20 ms after a run.

    Everything is closed by now, except for the output. An output that cannot be written is left to
    the interpreter, which says so.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by the caller, and the command line was not reached
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(code)


if __name__ == "__main__":
    sys.exit(run())
