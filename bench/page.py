"""Writes the table of the performance page from the rows of a run.

    python -m bench.page                  # of build/bench/last.jsonl and round-trips.jsonl
    python -m bench.page --print A.jsonl  # to look at; with other trees and other options, too

What stands between the two marks of the page is never written by hand: it is replaced as a whole.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import catalogue
from bench.far_clients import CLIENTS
from bench.place import BUILT, REPOSITORY
from bench.report import OURS, REFERENCES, number

type Row = Mapping[str, Any]

PAGE = REPOSITORY / "docs" / "concepts" / "performance.md"
RUNS = (BUILT / "last.jsonl", BUILT / "round-trips.jsonl")
BEGIN = "<!-- written by `python -m bench.page` from a run -->"
END = "<!-- end of what the run gave -->"
_NONE = "–"
_LAST = catalogue.ALL[-1].name  # the last measurement of a round, which a whole one has


@dataclass(frozen=True, slots=True)
class Line:
    """One measurement, as the table names it."""

    test: str
    title: str
    unit: str
    more_is_better: bool


def lines() -> Iterator[Line]:
    """Return every measurement that there is, in the order of the table."""
    for one in catalogue.ALL:
        yield Line(one.name, one.title, one.unit, one.more_is_better)
    for client in CLIENTS:
        title = f"{client.title}, where the internet is far"
        yield Line(f"first-{client.name}", title, "ms", more_is_better=False)


def table(rows: Sequence[Row], *, others: Sequence[str] = REFERENCES) -> str:
    """Return what the rows say of claude-proxy beside `others`, as markdown."""
    rows = [row for row in rows if "test" in row]
    present = {str(row["proxy"]) for row in rows}
    columns = [name for name in others if name in present]
    parts = [_cells("what", OURS, *(f"× {name}" for name in columns))]
    parts += [_cells("---", "---:", *("---:" for _ in columns))]
    for line in lines():
        own = [row for row in rows if row["test"] == line.test and row["value"] is not None]
        ours = {row["round"]: float(row["value"]) for row in own if row["proxy"] == OURS}
        if ours:
            better = "" if line.more_is_better else " (less is better)"
            cells = [f"{line.title}{better}"]
            cells += [f"{number(statistics.median(ours.values()))} {line.unit}"]
            cells += [
                _ratio(ours, [row for row in own if row["proxy"] == name]) for name in columns
            ]
            parts.append(f"| {' | '.join(cells)} |")
    return "\n".join(parts)


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(ours: Mapping[int, float], theirs: Sequence[Row]) -> str:
    """Return the median of the ratios within each round."""
    ratios = [
        ours[row["round"]] / row["value"] for row in theirs if row["round"] in ours and row["value"]
    ]
    return number(statistics.median(ratios)) if ratios else _NONE


def remarks(rows: Sequence[Row]) -> str:
    """Return where and how the rows were measured."""
    about: Mapping[str, str] = next((row["about"] for row in rows if "about" in row), {})
    said = [about[name] for name in ("machine", "how", "versions") if about.get(name)]
    # As many as there are rows of: a run may have been stopped.
    rounds = len({row["round"] for row in rows if "about" not in row and row.get("test") == _LAST})
    if rounds:
        said.append(f"{rounds} round{'s' if rounds > 1 else ''}")
    taken = [row["others_cores"] for row in rows if "others_cores" in row]
    if taken:
        said.append(f"other programs took {statistics.median(taken):.2f} cores meanwhile (median)")
    return f"{'; '.join(said)}." if said else ""


def put(page: str, content: str) -> str:
    """Return the page with `content` between its marks; ValueError if it has no such place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("rows", type=Path, nargs="*", metavar="FILE", help="rows of runs")
    parser.add_argument("--print", action="store_true", help="print the table, and write nothing")
    options = parser.parse_args(arguments)
    files = options.rows or [path for path in RUNS if path.exists()]
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    if not any(row.get("proxy") == OURS for row in rows):
        print("bench: there are no rows of claude-proxy: run `make bench` first", file=sys.stderr)
        return 2
    if options.print:
        found = list(dict.fromkeys(str(row["proxy"]) for row in rows if "proxy" in row))
        others = [*REFERENCES, *(name for name in found if name not in (OURS, *REFERENCES))]
        print(table(rows, others=others), remarks(rows), sep="\n\n")
        return 0
    PAGE.write_text(put(PAGE.read_text(), f"{table(rows)}\n\n{remarks(rows)}"))
    print(f"{PAGE.relative_to(REPOSITORY)} is written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
