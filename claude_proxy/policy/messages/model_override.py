"""Model override: replaces the model that a request names, and leaves every other byte as it was.

Agreement: what is passed on is what was sent. The API caches prompts by their bytes, so a body
that is written again from its content would cost more. Pure.
"""

import json
import re
from collections.abc import Iterable

from claude_proxy.policy.messages.capabilities import (
    MAX_NON_ASCII_KEYS,
    is_near_miss,
    non_ascii_keys,
)
from claude_proxy.policy.messages.strict_json import UnreadableError, read_object

EVERY_MODEL = "*"


def with_model(body: bytes, models: Iterable[tuple[str, str]]) -> bytes:
    """Return `body` with the model that `models` has for the one it names.

    Each pair is a requested model and its replacement; "*" is for every model without a pair
    and for a body without a model. UnreadableError if the body is not plainly one object that
    names at most one model.
    """
    content = read_object(body)
    # "Model" beside "model", or instead of it: a lenient parser would read the wrong one.
    if non_ascii_keys(content) > MAX_NON_ASCII_KEYS or any(map(is_near_miss, content)):
        raise UnreadableError("a key that is nearly another")
    model = _replacement_for(content.get("model"), dict(models))
    if model is None or model == content.get("model"):
        return body
    text = body.decode("utf-8")
    value = json.dumps(model)
    if "model" not in content:
        start = text.index("{") + 1
        return f'{text[:start]}"model":{value}{"," if content else ""}{text[start:]}'.encode()
    start, end = _span_of_model(text)
    return f"{text[:start]}{value}{text[end:]}".encode()


def _replacement_for(requested: object, models: dict[str, str]) -> str | None:
    return models.get(
        requested if isinstance(requested, str) else EVERY_MODEL, models.get(EVERY_MODEL)
    )


_DECODER = json.JSONDecoder()
_space = re.compile(r"[ \t\n\r]*+").match


def _span_of_model(text: str) -> tuple[int, int]:
    """Return where the model's value begins and ends in an object that is known to have one."""
    at = _past_space(text, 0) + 1  # the opening brace
    while True:
        key, at = _DECODER.raw_decode(text, _past_space(text, at))
        start = _past_space(text, _past_space(text, at) + 1)  # the colon
        _, end = _DECODER.raw_decode(text, start)
        if key == "model":
            return start, end
        at = _past_space(text, end) + 1  # the comma


def _past_space(text: str, at: int) -> int:
    found = _space(text, at)
    return at if found is None else found.end()
