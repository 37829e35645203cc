"""Measures claude-proxy, stock mitmdump and squid's ssl_bump side by side in one run.

Every round takes every proxy through one measurement before it goes to the next, so that what
else the machine does hits all alike. Compare figures within one run only.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import catalogue, columns, measurements, report
from bench.loads import LoadError
from bench.measurements import Measurement
from bench.place import BUILT, DENIED_HOST, HOST, Place
from bench.processes import StartError
from bench.proxies import NOT_STARTED, ClaudeProxy, Proxy, Running, Target


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or show what was measured before; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.summary:
        rows = [json.loads(line) for path in options.summary for line in path.open()]
        print(report.tables([row for row in rows if "test" in row]))
        return 0
    try:
        with Place([HOST, DENIED_HOST]) as place:
            rows = _measure(place, options)
    except StartError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(report.tables(rows))
    print(f"\nAll rows are in {options.out}; --summary shows the tables again.")
    troubles = [row for row in rows if row["proxy"] == ClaudeProxy.name and row.get("errors")]
    return 1 if troubles or not any(row["proxy"] == ClaudeProxy.name for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [measurement.name for measurement in catalogue.ALL]
    parser.add_argument("--rounds", type=int, default=3, help="how often all of it (%(default)s)")
    parser.add_argument("--secs", type=float, default=2.0, help="of each one (%(default)s)")
    parser.add_argument(
        "--tests", default="", help=f"which, by name or by prefix: {', '.join(names)}"
    )
    parser.add_argument("--only", default="", help="which proxies, by the start of their names")
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="measure claude-proxy as it is in another working tree, too; repeatable",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="OPTIONS",
        help="measure claude-proxy with more options of `serve`, too; repeatable",
    )
    parser.add_argument("--out", type=Path, default=BUILT / "last.jsonl", help="where the rows go")
    parser.add_argument(
        "--summary", type=Path, nargs="+", metavar="FILE", help="measure nothing; show the tables"
    )
    return parser


def _measure(place: Place, options: argparse.Namespace) -> list[dict[str, Any]]:
    nginx = place.start_nginx()
    tls, plain = nginx or (place.origin_tls, place.origin_plain)
    target = Target(tls, plain, place.origin_tls)
    chosen = chosen_tests(options.tests)
    candidates: list[Proxy] = [make(place, target) for make in columns.ALL]
    candidates += [ClaudeProxy(place, target, tree.resolve()) for tree in options.against]
    candidates += [ClaudeProxy(place, target, more=more) for more in options.also]
    candidates = [
        proxy
        for proxy in candidates
        if _is_meant(proxy.name, options.only) and any(m.applies_to(proxy) for m in chosen)
    ]
    if not candidates or not chosen:
        raise StartError("nothing is left to measure: see --tests and --only")
    answering = "nginx" if nginx else "our own"
    about = {
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "how": f"each figure {options.secs:g} s a round, answers by {answering}",
        "versions": ", ".join(f"{p.name} {p.version()}" for p in candidates if p.version()),
    }
    print(*filter(None, about.values()), "", sep="\n", flush=True)
    with ExitStack() as stack:
        if any(measurement.needs_running for measurement in chosen):
            live = list(_started(candidates, stack))
        else:
            live = [(proxy, NOT_STARTED) for proxy in candidates if _is_there(proxy)]
        if not live:
            raise StartError("nothing is left to measure: none of it could be started")
        return list(_rounds(live, chosen, options, about))


def chosen_tests(wanted: str) -> list[Measurement]:
    """Return the measurements of these names, or, where there is no such name, of this prefix."""
    names = {measurement.name for measurement in catalogue.ALL}
    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    exact = {part for part in parts if part in names}
    prefixes = tuple(part for part in parts if part not in names)
    return [m for m in catalogue.ALL if not parts or m.name in exact or m.name.startswith(prefixes)]


def _is_meant(name: str, wanted: str) -> bool:
    prefixes = tuple(prefix.strip() for prefix in wanted.split(",") if prefix.strip())
    return not prefixes or name.startswith(prefixes)


def _started(candidates: Iterable[Proxy], stack: ExitStack) -> Iterator[tuple[Proxy, Running]]:
    """Start every proxy and see that it decrypts; leave out, with a line, what does not."""
    for proxy in candidates:
        try:
            running = proxy.start()
            stack.callback(running.stop)
            measurements.warm_up(proxy, running)
        except (StartError, LoadError) as error:
            print(f"{proxy.name}: left out: {error}", flush=True)
        else:
            yield proxy, running


def _is_there(proxy: Proxy) -> bool:
    missing = proxy.missing()
    if missing is not None:
        print(f"{proxy.name}: left out: {missing}", flush=True)
    return missing is None


def _rounds(
    live: Sequence[tuple[Proxy, Running]],
    chosen: Sequence[Measurement],
    options: argparse.Namespace,
    about: dict[str, str],
) -> Iterator[dict[str, Any]]:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w") as out:
        out.write(json.dumps({"about": about}) + "\n")
        for number in range(options.rounds):
            # Nobody is always the first one.
            order = [*live[number % len(live) :], *live[: number % len(live)]]
            for measurement in chosen:
                for proxy, running in order:
                    if not measurement.applies_to(proxy):
                        continue
                    row = _taken(measurement, proxy, running, options.secs)
                    row["round"], row["place"] = number, live.index((proxy, running))
                    out.write(json.dumps(row) + "\n")
                    out.flush()
                    yield row
            print(f"round {number + 1} of {options.rounds}, {time.strftime('%X')}", flush=True)
    print()


def _taken(measurement: Measurement, proxy: Proxy, running: Running, secs: float) -> dict[str, Any]:
    row: dict[str, Any] = {"test": measurement.name, "proxy": proxy.name, "value": None}
    try:
        row |= measurement.take(proxy, running, secs)
    except (LoadError, StartError) as error:
        return row | {"error": str(error), "errors": 1}
    if row["count"]:
        row["value"] = round(measurement.value(row), 4)
    return row


if __name__ == "__main__":
    sys.exit(main())
