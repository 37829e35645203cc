"""Shared by the tests of this directory."""

import re
from collections.abc import Callable

type Run = Callable[..., tuple[int, str, str]]


def exec_start(text: str) -> str:
    [line] = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    return str(line)
