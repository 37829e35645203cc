"""Turns the rows of a run into markdown; pure.

Ratios are taken within a round, where all proxies met the same noise, and the median of the
ratios is shown. The absolute figures are those of one machine at one time.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.catalogue import ALL
from bench.measurements import Measurement

type Row = Mapping[str, Any]

OURS = "claude-proxy"
REFERENCES = ("squid", "srt", "mitmdump", "agentcage", "no proxy")
_KIB_PER_MIB = 1024
_MIB = 1024 * 1024
_NONE = "–"


def tables(rows: Sequence[Row]) -> str:
    """Return a table for each measurement, and what to think of the machine."""
    parts = [_table(measurement, rows) for measurement in ALL]
    return "\n".join([*filter(None, parts), _remarks(rows)])


def _table(measurement: Measurement, rows: Sequence[Row]) -> str:
    rows = [row for row in rows if row["test"] == measurement.name]
    rows = sorted(rows, key=lambda row: int(row["place"]))
    names = list(dict.fromkeys(str(row["proxy"]) for row in rows))
    if not names:
        return ""
    references = [name for name in REFERENCES if name in names]
    if any(name.startswith(f"{OURS} ") for name in names):
        references.append(OURS)  # there is another one to compare with it
    details = [column for column in _DETAILS if any(column.of(row) is not None for row in rows)]
    better = "more" if measurement.more_is_better else "less"
    head = ["", f"{measurement.unit}: median [least to most]"]
    head += [f"× {name}" for name in references] + [column.title for column in details]
    lines = [f"**{measurement.name}**: {measurement.title} ({better} is better)", ""]
    lines += [_line(head), _line(["---"] + ["---:"] * (len(head) - 1))]
    for name in names:
        own = [row for row in rows if row["proxy"] == name]
        ratios = [
            _ratio(own, [row for row in rows if row["proxy"] == other]) for other in references
        ]
        lines.append(
            _line([name, _headline(own), *ratios, *(_median(own, column.of) for column in details)])
        )
    return "\n".join([*lines, ""])


def _headline(rows: Sequence[Row]) -> str:
    values = [row["value"] for row in rows if row["value"] is not None]
    errors = sum(row["errors"] for row in rows)
    why = next((f": {row['error']}" for row in rows if row.get("error")), "")
    trouble = f"; **{errors} errors**{why}" if errors else ""
    if not values:
        return f"nothing{trouble}"
    spread = f"{number(statistics.median(values))} [{number(min(values))} to {number(max(values))}]"
    return spread + trouble


@dataclass(frozen=True, slots=True)
class _Detail:
    """A column beside the headline, left out where no row has it."""

    title: str
    of: Callable[[Row], float | None]


def _latency(name: str) -> Callable[[Row], float | None]:
    return lambda row: float(row[name]) if row.get(name) else None  # 0: there are no latencies


def _cpu_us(row: Row) -> float | None:
    """Return what one unit of the work cost the proxy; of a download, one MiB."""
    if not row.get("cpu_s") or "kib_each" in row:
        return None
    is_download = row["test"].startswith("download")
    units = float(row["bytes"] / _MIB if is_download else row["count"])
    return float(row["cpu_s"]) / max(1.0, units) * 1e6


def _peak_mib(row: Row) -> float | None:
    return int(row["peak_kib"]) / _KIB_PER_MIB if "peak_kib" in row else None


def _of(name: str, unit: float = 1) -> Callable[[Row], float | None]:
    return lambda row: float(row[name]) / unit if name in row else None


_DETAILS = (
    _Detail("p50 µs", _latency("p50_us")),
    _Detail("p99 µs", _latency("p99_us")),
    _Detail("CPU µs a unit", _cpu_us),
    _Detail("peak MiB", _peak_mib),
    _Detail("the first ones, ms", _of("first_ms")),
    _Detail("ms more than plain podman", _of("more_ms")),
    _Detail("MiB a run", _of("run_kib", _KIB_PER_MIB)),
    _Detail("KiB more of the proxy, each", _of("proxy_kib_each")),
)


def _ratio(rows: Iterable[Row], references: Iterable[Row]) -> str:
    by_round = {row["round"]: row["value"] for row in references if row["value"]}
    ratios = [
        row["value"] / by_round[row["round"]]
        for row in rows
        if row["round"] in by_round and row["value"] is not None
    ]
    return number(statistics.median(ratios)) if ratios else _NONE


def _median(rows: Iterable[Row], of: Callable[[Row], float | None]) -> str:
    values = [value for row in rows if (value := of(row)) is not None]
    return number(statistics.median(values)) if values else _NONE


def _remarks(rows: Sequence[Row]) -> str:
    others = [row["others_cores"] for row in rows if "others_cores" in row]
    if not others:
        return ""
    return (
        "Ratios are the median of the ratios within each round. "
        "CPU and memory are the proxy's with its child processes; a unit is one request, tunnel, "
        "refusal or event, of a download one MiB.\n"
        f"Other programs took {statistics.median(others):.2f} cores meanwhile (median; at most "
        f"{max(others):.2f}): above 0.1 or so, run it again when it is quiet."
    )


def number(value: float) -> str:
    """Return a number with three digits that mean something, or all that it has."""
    size = abs(value)
    if 0 < size < 0.1:  # noqa: PLR2004
        return f"{value:.1g}"
    digits = 0 if size >= 100 else 1 if size >= 10 else 2  # noqa: PLR2004
    return f"{value:,.{digits}f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
