"""Plan of a container beside another one: of the same image, as hard, in the same network; pure.

Law kept: no quiet downgrade: nothing of the other one's options is left out but its name, what it
is attached to, and what says where its network comes from.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from claude_proxy.sandbox.container.plan.bind_words import bind_words
from claude_proxy.sandbox.container.plan.model import ContainerPlan

_WITH_VALUE = ("--name", "--hostname", "--network", "--label", "--entrypoint", "--userns")
_FLAGS = frozenset({"--interactive", "--tty", "--rm", "--init"})


def beside(
    plan: ContainerPlan, name: str, lent: Path, at: PurePosixPath, command: Sequence[str]
) -> tuple[str, ...]:
    """Return the words after `run` for a container `name`; `lent` is read-only at `at`."""
    first, *rest = command
    return (
        *("--name", name, "--rm", "--interactive"),
        *("--network", f"container:{plan.name}"),
        *_user_namespace(plan),
        *_kept(plan.options),
        *plan.mount_options,
        *bind_words(lent, at, writable=False),
        *("--entrypoint", first),
        plan.image,
        *rest,
    )


def _user_namespace(plan: ContainerPlan) -> tuple[str, ...]:
    """Return the option by which it is in the user namespace that owns the network."""
    has_own = any(option.startswith("--userns=") for option in plan.options)
    return ("--userns", f"container:{plan.name}") if has_own else ()


def _kept(options: Sequence[str]) -> Iterator[str]:
    rest = iter(options)
    for option in rest:
        if option in _WITH_VALUE:
            next(rest)
        elif option not in _FLAGS and not option.startswith(tuple(f"{n}=" for n in _WITH_VALUE)):
            yield option
