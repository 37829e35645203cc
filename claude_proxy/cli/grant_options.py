"""Options of the commands about grants: for how long, for whom, why, and where they are kept."""

import re
import unicodedata
from pathlib import Path
from typing import Any, Final, override

import click
from click.shell_completion import CompletionItem

from claude_proxy.audit.escape import escape_text
from claude_proxy.cli import completers
from claude_proxy.cli.options import Decorator
from claude_proxy.errors import ConfigError

_SECOND_NS: Final = 1_000_000_000
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION: Final = re.compile(r"(?:([0-9]{1,9})([smhdw]))+", re.ASCII)
_PART: Final = re.compile(r"([0-9]+)([smhdw])", re.ASCII)
_LONGEST_S: Final = 30 * 86_400
MOST_USES: Final = 1_000_000  # of one grant, as of one answer to a question
_REASON_BOUND: Final = 200
_ESCAPED_BYTES: Final = 0xDC00  # plus the byte, as Python passes on what it cannot decode


class Duration(click.ParamType[int]):
    """A duration in nanoseconds: "90s", "10m", "1h", "1h30m", "2d"."""

    name = "duration"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Any:
        return parse_duration(value) if isinstance(value, str) else value


def parse_duration(text: str, where: str = "--for") -> int:
    """Return a duration in nanoseconds; ConfigError if it is none, or too long for a grant."""
    if _DURATION.fullmatch(text.strip().lower()) is None:
        raise ConfigError(
            f'"{escape_text(text)}" is not a duration',
            where=where,
            fix="write a number with its unit: 90s, 10m, 1h, 1h30m, 2d",
        )
    parts = _PART.findall(text.strip().lower())
    seconds = sum(int(number) * _UNITS_S[unit] for number, unit in parts)
    if seconds <= 0:
        raise ConfigError("a grant for no time allows nothing", where=where, fix="write 10m or 1h")
    if seconds > _LONGEST_S:
        raise ConfigError(
            "a grant can last for 30 days at most",
            where=f"{where} {escape_text(text)}",
            fix="leave --for out: then the host is written to the list",
        )
    return seconds * _SECOND_NS


def _reason(_: click.Context, __: click.Parameter, value: str | None) -> str:
    text = (value or "").strip()
    if (odd := next((each for each in text if not each.isprintable()), None)) is not None:
        raise ConfigError(
            f"a reason is one line that can be shown as it is, and this one has {_name_of(odd)}",
            where=f"--reason, character {text.index(odd) + 1}",
            fix="leave the character out",
        )
    if len(text) > _REASON_BOUND:
        raise ConfigError(
            f"a reason has at most {_REASON_BOUND} characters, and this one has {len(text)}",
            where="--reason",
            fix="shorten it",
        )
    return text


def _name_of(character: str) -> str:
    """Return what a character that cannot be shown is called: `a line break (U+000A)`."""
    code = ord(character)
    what = {"\n": "a line break", "\r": "a line break", "\t": "a tab"}.get(character)
    if what is None and _ESCAPED_BYTES <= code < _ESCAPED_BYTES + 0x100:
        return f"a byte that is not UTF-8 (0x{code - _ESCAPED_BYTES:02x})"
    if what is None:
        is_control = unicodedata.category(character) == "Cc"
        name = unicodedata.name(character, "").lower()
        what = "a control character" if is_control or not name else f"the character {name}"
    return f"{what} (U+{code:04X})"


def runs(_context: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the names of the living runs and containers."""
    return completers.living_runs(begun)


def for_option(text: str, *, required: bool = False) -> Decorator:
    """Return `--for`, passed on as `lasts_ns`."""
    return click.option(
        "--for", "lasts_ns", type=Duration(), metavar="DURATION", help=text, required=required
    )


def run_option(text: str) -> Decorator:
    """Return `--run`, passed on as `run_name`."""
    return click.option("--run", "run_name", metavar="NAME", help=text, shell_complete=runs)


def project_option(text: str) -> Decorator:
    """Return `--project`, passed on as `project`."""
    return click.option(
        "--project",
        type=click.Path(file_okay=False, exists=True, path_type=Path, resolve_path=True),
        metavar="DIR",
        help=text,
    )


def reason_option() -> Decorator:
    """Return `--reason`, passed on as `reason`."""
    return click.option(
        "--reason", metavar="TEXT", callback=_reason, help="Why; it is kept in the record."
    )


def statedir_option() -> Decorator:
    """Return `--statedir`, passed on as `statedir`; None: where the running proxies keep theirs."""
    return click.option(
        "--statedir",
        envvar="CLAUDE_PROXY_STATEDIR",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="State directory of the proxies.  [default: that of what runs]",
    )
