"""Model override: replaces the model in the body of a request; all other bytes stay.

Agreement: the rest of the body is passed on as sent. The API also caches prompts by their bytes, so
a body that is serialised again would cost more. Pure.
"""

import json
from collections.abc import Iterable

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.messages.capabilities import (
    MAX_NON_ASCII_KEYS,
    is_near_miss,
    non_ascii_keys,
)
from claude_proxy.policy.messages.strict_json import UnreadableError, read_object

EVERY_MODEL = "*"


def with_model(body: bytes, models: Iterable[tuple[str, str]]) -> bytes:
    """Return `body` with its model replaced according to `models`.

    Each pair is a requested model and its replacement; "*" applies to every other model and to a
    body without one. UnreadableError if the body is not one JSON object that every parser reads in
    the same way.
    """
    content = read_object(body)
    # A lenient parser would read "Model" as "model".
    if non_ascii_keys(content) > MAX_NON_ASCII_KEYS or any(map(is_near_miss, content)):
        raise UnreadableError("a key similar to a known one")
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
_space = lazy_pattern(r"[ \t\n\r]*+").match


def _span_of_model(text: str) -> tuple[int, int]:
    """Return the start and end of the model's value in an object that has one."""
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
