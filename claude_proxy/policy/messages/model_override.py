"""Puts another model into a request, and leaves every other byte as it was.

Laws kept: agreement (4); what is passed on is what was sent (prompts are cached by their bytes, so
to write the whole body anew would cost money). Pure.
"""

import json
import re
from collections.abc import Iterable

from claude_proxy.policy.messages.capabilities import MOST_FOREIGN, foreign_keys, is_misspelt
from claude_proxy.policy.messages.strict_json import UnreadableError, read_object

EACH = "*"


def with_model(body: bytes, models: Iterable[tuple[str, str]]) -> bytes:
    """Return `body` with the model that `models` gives for the one it asks for.

    Pairs are of an asked model, or "*" for each that has no pair of its own (and for none), and the
    given one. UnreadableError if the body is not plainly one object with one model.
    """
    asked = read_object(body)
    # "Model" beside "model", or in its place: who reads it would read it in both.
    if foreign_keys(asked) > MOST_FOREIGN or any(map(is_misspelt, asked)):
        raise UnreadableError("a key that is nearly another")
    given = _given_for(asked.get("model"), dict(models))
    if given is None or given == asked.get("model"):
        return body
    text = body.decode("utf-8")
    value = json.dumps(given)
    if "model" not in asked:
        start = text.index("{") + 1
        return f'{text[:start]}"model":{value}{"," if asked else ""}{text[start:]}'.encode()
    start, end = _place_of_model(text)
    return f"{text[:start]}{value}{text[end:]}".encode()


def _given_for(asked: object, models: dict[str, str]) -> str | None:
    return models.get(asked if isinstance(asked, str) else EACH, models.get(EACH))


_DECODER = json.JSONDecoder()
_space = re.compile(r"[ \t\n\r]*+").match


def _place_of_model(text: str) -> tuple[int, int]:
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
