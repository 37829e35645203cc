"""Measures what one decision costs, by the length of the allowlist, beside a loop of regexes.

The regexes are what most allowlists of proxies are made of: one for each host, compiled before,
tried in turn. Both judge the same names, half of which are allowed.
"""

import random
import re
import statistics
import string
import sys
import time
from collections.abc import Callable, Sequence

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.wire.authority import Authority

SIZES = (10, 1_000, 100_000)
_SEED = 1
_ASKED = 100  # different names, so that no single answer stays in the processor's cache
_LETTERS = string.ascii_lowercase + string.digits
_ROUNDS = 3
_ROUND_S = 0.15
_US = 1e6


def main() -> int:
    """Measure and print a table."""
    print("| hosts | load | decide on a tunnel | decide on a request | loop of regexes | ratio |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in SIZES:
        print(_row(size), flush=True)
    print("\nMedian of a decision; the ratio is loop of regexes / decide on a tunnel.")
    return 0


def _row(size: int) -> str:
    draw = random.Random(_SEED)
    domains = [f"{_word(draw, 8)}-{number}.com" for number in range(size)]
    # Both spellings that people write: the name itself, and it with its subdomains.
    entries = [domain if number % 2 else f".{domain}" for number, domain in enumerate(domains)]
    text = "allow:\n" + "".join(f'  - "{entry}"\n' for entry in entries)
    start = time.perf_counter()
    policy = loader.load(text, name="allowlist.yaml")
    load_s = time.perf_counter() - start
    patterns = [_pattern(entry) for entry in entries]
    hosts = _asked(draw, domains)
    targets = [Authority.of(host, 443) for host in hosts]
    requests = [Request(Scheme.HTTPS, target, target, "GET", "/v1/messages") for target in targets]
    _check(policy, patterns, hosts, targets)
    connect_us = _cost_us(policy.decide_connect, targets)
    request_us = _cost_us(policy.decide_request, requests)
    loop_us = _cost_us(lambda host: any(pattern.match(host) for pattern in patterns), hosts)
    return (
        f"| {size:,} | {load_s * 1000:,.0f} ms | {connect_us:.2f} µs | {request_us:.2f} µs "
        f"| {loop_us:,.1f} µs | {loop_us / connect_us:,.1f} |"
    )


def _word(draw: random.Random, length: int) -> str:
    return "".join(draw.choices(_LETTERS, k=length))


def _pattern(entry: str) -> re.Pattern[str]:
    prefix = r"(?:.*\.)?" if entry.startswith(".") else ""
    return re.compile(prefix + re.escape(entry.removeprefix(".")) + r"\Z", re.IGNORECASE)


def _asked(draw: random.Random, domains: Sequence[str]) -> list[str]:
    """Return names of which half are in the list, wherever in it they stand."""
    known = draw.choices(domains, k=_ASKED // 2)
    strange = [f"www.{_word(draw, 9)}.net" for _ in range(_ASKED // 2)]
    return [*known, *strange]


def _check(
    policy: Policy,
    patterns: Sequence[re.Pattern[str]],
    hosts: Sequence[str],
    targets: Sequence[Authority],
) -> None:
    """See that both say the same, or there would be nothing to compare."""
    for host, target in zip(hosts, targets, strict=True):
        matched = any(pattern.match(host) for pattern in patterns)
        if matched is not policy.decide_connect(target).allowed:
            raise SystemExit(f"bench: the regexes and the policy disagree about {host}")


def _cost_us[T](decide: Callable[[T], object], asked: Sequence[T]) -> float:
    """Return what one decision costs: the median of rounds over every name that is asked for."""
    rounds = []
    for _ in range(_ROUNDS):
        count, start = 0, time.perf_counter()
        spent = 0.0
        while spent < _ROUND_S:
            for one in asked:
                decide(one)
            count += len(asked)
            spent = time.perf_counter() - start
        rounds.append(spent / count * _US)
    return statistics.median(rounds)


if __name__ == "__main__":
    sys.exit(main())
