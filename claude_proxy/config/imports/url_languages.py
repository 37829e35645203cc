"""URLs as a regular language, and the hosts and paths that an expression about URLs contains.

Law kept: silence before allow. Hosts and paths stand for an expression only if every URL with them
matches, whatever its port and its query. Pure.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from claude_proxy.config.imports.host_languages import MOST_BRANCHES, hosts_expr, runs_of
from claude_proxy.config.imports.languages import (
    URL_CHARS,
    Alt,
    Any1,
    Automaton,
    Expr,
    Repeat,
    Seq,
    TooComplexError,
    literal,
    witness,
)
from claude_proxy.policy.patterns import HostPattern, PathGlob, PatternError
from claude_proxy.policy.request import Scheme

type Globs = tuple[str, ...] | None  # of paths; None: every path

_ANY = Repeat(Any1(URL_CHARS), 0, None)
_IN_SEGMENT = Any1(URL_CHARS - frozenset("/?"))
_IN_PATH = Any1(URL_CHARS - frozenset("?"))
_QUERY = Repeat(Seq((literal("?"), _ANY)), 0, 1)
_PORT = Repeat(Seq((literal(":"), Repeat(Any1(frozenset("0123456789")), 1, 5))), 0, 1)


def paths_expr(globs: Globs) -> Expr:
    """Return the paths that globs cover, each with any query."""
    if globs is None:
        return Seq((literal("/"), _ANY))
    return Seq((Alt(tuple(map(_glob_expr, globs))), _QUERY))


def _glob_expr(glob: str) -> Expr:
    body = glob.removesuffix("/**")
    parts: list[Expr] = []
    for at, segment in enumerate(body.split("/")):
        if at:
            parts.append(literal("/"))
        if segment == "*":
            parts.append(Repeat(_IN_SEGMENT, 1, None))
            continue
        for index, piece in enumerate(segment.split("*")):
            if index:
                parts.append(Repeat(_IN_SEGMENT, 0, None))
            parts.append(literal(piece))
    if body != glob:
        parts.append(Repeat(Seq((literal("/"), Repeat(_IN_PATH, 0, None))), 0, 1))
    return Seq(tuple(parts))


def _urls_expr(
    scheme: Scheme, pattern: HostPattern, globs: Globs, *, any_port: bool
) -> Expr | None:
    host = hosts_expr(pattern)
    if host is None:
        return None
    # The usual port is left out of a URL.
    port = (_PORT,) if any_port else ()
    return Seq((literal(f"{scheme.value}://"), host, *port, paths_expr(globs)))


class UrlExpression:
    """An expression about a whole URL, or about its path and query alone."""

    def __init__(self, expr: Expr | None, *, of_path: bool, as_sent: bool = False) -> None:
        """Take an expression that may match anywhere; None: one that cannot be read.

        With `as_sent` the usual port may be in a URL, too.
        """
        self._expr = expr
        self._as_sent = as_sent
        self._of_path = of_path
        try:
            self._automaton = None if expr is None else Automaton(expr, anywhere=True)
        except TooComplexError:
            self._automaton = None

    @property
    def is_known(self) -> bool:
        """Whether anything is known about what it matches."""
        return self._automaton is not None

    def covers(
        self, scheme: Scheme, pattern: HostPattern, globs: Globs, *, any_port: bool = True
    ) -> bool:
        """Return whether it matches every such URL, as far as is known."""
        urls = self._urls(scheme, pattern, globs, any_port=any_port)
        return self._automaton is not None and self._none([urls], [self._automaton])

    def may_match(self, scheme: Scheme, pattern: HostPattern, globs: Globs) -> bool:
        """Return whether it may match such a URL."""
        urls = self._urls(scheme, pattern, globs)
        return self._automaton is None or not self._none([urls, self._automaton], [])

    def parts(
        self, scheme: Scheme, pattern: HostPattern, *, any_port: bool
    ) -> Iterator[tuple[HostPattern, Globs]]:
        """Yield hosts of a pattern and paths with which it matches every URL."""
        if self._expr is None:
            return
        found: list[tuple[HostPattern, Globs]] = []
        for host, prefix in self._guesses(pattern):
            globs: Globs = None
            if not self.covers(scheme, host, None, any_port=any_port):
                globs = tuple(
                    glob
                    for glob in _globs_of(prefix)
                    if self.covers(scheme, host, (glob,), any_port=any_port)
                )
            is_known = any(each.includes(host) and globs == those for each, those in found)
            if globs != () and not is_known:
                found.append((host, globs))
                yield host, globs

    def bound(self, scheme: Scheme, pattern: HostPattern) -> Globs:
        """Return globs that hold every path of hosts of a pattern that it may match."""
        if self._automaton is None or self._expr is None:
            return None
        urls = self._urls(scheme, pattern, None)
        for _, prefix in self._guesses(pattern):
            globs = _bounds_of(prefix)
            if globs and self._none([urls, self._automaton], [self._urls(scheme, pattern, globs)]):
                return globs
        return None

    def _urls(
        self, scheme: Scheme, pattern: HostPattern, globs: Globs, *, any_port: bool = True
    ) -> Automaton | None:
        if self._of_path:
            return Automaton(paths_expr(globs))
        expr = _urls_expr(scheme, pattern, globs, any_port=any_port or self._as_sent)
        return None if expr is None else Automaton(expr)

    @staticmethod
    def _none(inside: list[Automaton | None], outside: list[Automaton | None]) -> bool:
        known = [each for each in inside if each is not None]
        without = [each for each in outside if each is not None]
        if len(known) < len(inside) or len(without) < len(outside):
            return False
        try:
            return witness(known, without, alphabet=URL_CHARS) is None
        except TooComplexError:
            return False

    def _guesses(self, pattern: HostPattern) -> Iterator[tuple[HostPattern, str]]:
        """Yield hosts of a pattern, and how their paths may begin."""
        if self._expr is None:
            return
        seen = set()
        for run in islice(runs_of(self._expr), MOST_BRANCHES):
            if self._of_path:
                found = [(pattern, run)]
            else:
                host, slash, rest = run.rpartition("://")[2].partition("/")
                found = [(each, slash + rest) for each in _hosts_of(host, pattern)]
            for each in found:
                if each not in seen:
                    seen.add(each)
                    yield each


def _hosts_of(host: str, within: HostPattern) -> Iterator[HostPattern]:
    name = host.partition(":")[0].strip(".")
    for text in (f".{name}", f"*.{name}", name):
        try:
            pattern = HostPattern.parse(text)
        except PatternError:
            continue
        if within.includes(pattern):
            yield pattern
    if not name:
        yield within


def _globs_of(prefix: str) -> Iterable[str]:
    if not prefix.startswith("/"):
        return ()
    if prefix.endswith("/"):
        wanted = [prefix, f"{prefix}*/**"]
    else:
        wanted = [f"{prefix}*/**", prefix, f"{prefix}/**"]
        if _is_glob(wanted[0]):
            wanted = [wanted[0], prefix]
    return tuple(glob for glob in wanted if _is_glob(glob))


def _bounds_of(prefix: str) -> tuple[str, ...]:
    """Return globs of all that begins so, also with empty segments, which no server means."""
    if not prefix.startswith("/"):
        return ()
    glob = f"{prefix}**" if prefix.endswith("/") else f"{prefix}*/**"
    return (glob,) if _is_glob(glob) else ()


def _is_glob(text: str) -> bool:
    try:
        PathGlob.parse(text)
    except PatternError:
        return False
    return True
