"""Checks of a run's port mappings against each other and against the run's own ports; pure.

Law kept: fail closed. Two mappings of one port, one of a port that the run itself uses, and a way
back into the run are errors before anything starts.
"""

from collections.abc import Iterator, Sequence

from claude_proxy.config.port_mappings import Forward, Published
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.environment import GATEWAY_PORT, HTTP_PORT, SOCKS_PORT

RESERVED = {
    53: "answers lookups of names",
    HTTP_PORT: "is the run's proxy",
    SOCKS_PORT: "is the run's SOCKS5 proxy",
    GATEWAY_PORT: "is the run's gateway",
}

MOST = 64  # of each kind: all are passed between processes in one message


def check(forwards: Sequence[Forward], published: Sequence[Published]) -> None:
    """Raise ConfigError if two mappings cannot be together, or one takes a port of the run."""
    for problem in _problems(forwards, published):
        raise problem


def _problems(forwards: Sequence[Forward], published: Sequence[Published]) -> Iterator[ConfigError]:
    for option, count in (("--forward", len(forwards)), ("--publish", len(published))):
        if count > MOST:
            yield ConfigError(
                f"{count} ports are more than the {MOST} that a run can have",
                where=option,
                fix="name those that are needed",
            )
    inside: dict[tuple[str, int], Forward] = {}
    for forward in forwards:
        if forward.port in RESERVED:
            yield _reserved(f"--forward {forward}", forward.port)
        place = (forward.address, forward.port)
        if place in inside:
            yield ConfigError(
                f"{forward.listens_at} inside would lead to two places",
                where=f"--forward {inside[place]}, --forward {forward}",
                fix="give one of them another port inside, such as "
                f"{_another(forward.port)}={str(forward).partition('=')[2]}",
            )
        inside[place] = forward
    yield from _problems_of_published(published, {forward.port: forward for forward in forwards})
    ours = {one.host_port for one in published}
    for forward in forwards:
        if forward.to_host and forward.target.port in ours:
            yield ConfigError(
                f"port {forward.target.port} of this machine leads back into the run",
                where=f"--forward {forward}, --publish",
                fix="connect to the server inside by its own port, and drop one of the two",
            )


def _problems_of_published(
    published: Sequence[Published], forwarded: dict[int, Forward]
) -> Iterator[ConfigError]:
    outside: set[tuple[str, int]] = set()
    for one in published:
        if one.port in RESERVED:
            yield _reserved(f"--publish {one}", one.port)
        if one.port in forwarded:
            yield ConfigError(
                f"port {one.port} inside is a listener of --forward, and no server of the run",
                where=f"--publish {one}, --forward {forwarded[one.port]}",
                fix="publish the port of a server inside, or drop one of the two",
            )
        place = (one.address, one.host_port)
        if one.host_port and place in outside:
            yield ConfigError(
                f"{one.listens_at} would be listened on twice",
                where=f"--publish {one}",
                fix=f"take another port of this machine, or 0 for a free one: 0:{one.port}",
            )
        outside.add(place)


def _reserved(where: str, port: int) -> ConfigError:
    return ConfigError(
        f"port {port} inside {RESERVED[port]}",
        where=where,
        fix=f"take another port, such as {_another(port)}",
    )


def _another(port: int) -> int:
    return port + 10_000 if port < 50_000 else port - 10_000  # noqa: PLR2004 - ports end at 65535
