"""Request schema of strict mode: the fields that a body may have, and no others.

Default-deny: an unknown field is refused, not dropped, since its sender would believe that it
applies. What goes upstream is written from what was read. A complaint names the field and what it
should be, and never what was in it. Pure.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from claude_proxy.policy.messages.strict_json import UnreadableError, read_object

type FieldPath = tuple[str | int, ...]
type FieldCheck = Callable[[object, FieldPath], Iterator["Complaint"]]

NO_STREAMING = "Streaming is not supported"
_NO_TOOLS = "Tools are not supported"
_NO_THINKING = "Thinking is not supported"
_UNKNOWN = "This field is not supported"
_UNREADABLE = "The body is not a JSON object that can be read in exactly one way"
_MOST_COMPLAINTS = 20
# Which unknown names a complaint may repeat; a longer one may be anything, even a prompt.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}").fullmatch
_MEDIA_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]+").fullmatch

_EXPLAINED = {
    "tools": _NO_TOOLS,
    "tool_choice": _NO_TOOLS,
    "mcp_servers": _NO_TOOLS,
    "container": _NO_TOOLS,
    "thinking": _NO_THINKING,
}


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with one field."""

    path: FieldPath
    message: str

    def shown(self) -> dict[str, object]:
        """Return it as in the response."""
        return {"loc": ["body", *self.path], "msg": self.message, "type": "value_error"}


class Invalid(ValueError):  # noqa: N818 - it is the request that is invalid, not the program
    """A body that strict mode does not take."""

    def __init__(self, complaints: list[Complaint]) -> None:
        super().__init__(f"{len(complaints)} fields are wrong")
        self.complaints = complaints

    def shown(self) -> list[dict[str, object]]:
        """Return the complaints as in the response."""
        return [complaint.shown() for complaint in self.complaints]


@dataclass(frozen=True, slots=True)
class StrictRequest:
    """A body that was read whole."""

    fields: Mapping[str, object] = field(repr=False)

    def written(self) -> bytes:
        """Return the body for upstream."""
        return json.dumps(self.fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def read(body: bytes) -> StrictRequest:
    """Read a body; Invalid says what is wrong with it."""
    try:
        value = read_object(body)
    except UnreadableError:
        raise Invalid([Complaint((), _UNREADABLE)]) from None
    complaints: list[Complaint] = []
    for complaint in _object(value, (), _REQUEST, required=("model", "max_tokens", "messages")):
        complaints.append(complaint)
        if len(complaints) == _MOST_COMPLAINTS:
            break
    if complaints:
        raise Invalid(complaints)
    # "stream" can only be false here, which is the default.
    kept = {name: _without_nulls(found) for name, found in value.items() if name != "stream"}
    return StrictRequest({name: found for name, found in kept.items() if found is not None})


def _without_nulls(value: object) -> object:
    """Drop null fields at every depth; a list keeps its length."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return value


# --- what each field may be


def _object(
    value: object,
    path: FieldPath,
    known: Mapping[str, FieldCheck],
    *,
    required: tuple[str, ...] = (),
) -> Iterator[Complaint]:
    if not isinstance(value, dict):
        yield Complaint(path, "An object is expected")
        return
    for name in required:
        if value.get(name) is None:
            yield Complaint((*path, name), "This field is required")
    for name, found in value.items():
        check = known.get(name)
        if check is None:
            shown = name if _NAME(name) else "(another field)"
            yield Complaint((*path, shown), _EXPLAINED.get(name, _UNKNOWN))
        elif found is not None:
            yield from check(found, (*path, name))


def _text(value: object, path: FieldPath) -> Iterator[Complaint]:
    if not isinstance(value, str):
        yield Complaint(path, "A text is expected")


def _filled(value: object, path: FieldPath) -> Iterator[Complaint]:
    if not isinstance(value, str) or not value:
        yield Complaint(path, "A text that is not empty is expected")


def _number(least: float, most: float) -> FieldCheck:
    def check(value: object, path: FieldPath) -> Iterator[Complaint]:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not least <= value <= most:  # type: ignore[operator]
            yield Complaint(path, f"A number from {least:g} to {most:g} is expected")

    return check


def _whole(least: int) -> FieldCheck:
    def check(value: object, path: FieldPath) -> Iterator[Complaint]:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            yield Complaint(path, f"A whole number of at least {least} is expected")

    return check


def _one_of(*allowed: str) -> FieldCheck:
    expected = " or ".join(f'"{one}"' for one in allowed)

    def check(value: object, path: FieldPath) -> Iterator[Complaint]:
        if value not in allowed:
            yield Complaint(path, f"{expected} is expected")

    return check


def _not_streamed(value: object, path: FieldPath) -> Iterator[Complaint]:
    if value is not False:
        yield Complaint(path, NO_STREAMING)


def _list_of(check: FieldCheck, *, least: int = 0) -> FieldCheck:
    def check_all(value: object, path: FieldPath) -> Iterator[Complaint]:
        if not isinstance(value, list) or len(value) < least:
            yield Complaint(path, f"A list of at least {least} is expected")
            return
        for at, one in enumerate(value):
            yield from check(one, (*path, at))

    return check_all


def _shape(known: Mapping[str, FieldCheck], *required: str) -> FieldCheck:
    def check(value: object, path: FieldPath) -> Iterator[Complaint]:
        yield from _object(value, path, known, required=required)

    return check


def _kinds(shapes: Mapping[str, FieldCheck]) -> FieldCheck:
    """FieldCheck an object by its field "type"."""
    expected = _one_of(*shapes)

    def check(value: object, path: FieldPath) -> Iterator[Complaint]:
        kind = value.get("type") if isinstance(value, dict) else None
        shape = shapes.get(kind) if isinstance(kind, str) else None
        if shape is None:
            yield from expected(None, (*path, "type"))
        else:
            yield from shape(value, path)

    return check


def _text_or(check_list: FieldCheck) -> FieldCheck:
    def check(value: object, path: FieldPath) -> Iterator[Complaint]:
        if not isinstance(value, str):
            yield from check_list(value, path)

    return check


def _media_type(value: object, path: FieldPath) -> Iterator[Complaint]:
    if not isinstance(value, str) or not _MEDIA_TYPE(value):
        yield Complaint(path, "A media type is expected")


_CACHE = _shape({"type": _one_of("ephemeral"), "ttl": _one_of("5m", "1h")}, "type")
_KIND: dict[str, FieldCheck] = {"type": _text}
# By value alone: a URL or a file id would make the provider fetch it.
_SOURCES = _kinds(
    {
        "base64": _shape(
            {**_KIND, "media_type": _media_type, "data": _filled}, "media_type", "data"
        ),
        "text": _shape({**_KIND, "media_type": _media_type, "data": _text}, "media_type", "data"),
    }
)
_BLOCK: dict[str, FieldCheck] = {**_KIND, "cache_control": _CACHE}
_TEXT_BLOCK = _shape({**_BLOCK, "text": _text}, "text")
_BLOCKS = _list_of(
    _kinds(
        {
            "text": _TEXT_BLOCK,
            "image": _shape({**_BLOCK, "source": _SOURCES}, "source"),
            "document": _shape(
                {**_BLOCK, "source": _SOURCES, "title": _text, "context": _text}, "source"
            ),
        }
    ),
    least=1,
)
_MESSAGE = _shape(
    {"role": _one_of("user", "assistant"), "content": _text_or(_BLOCKS)}, "role", "content"
)
_REQUEST: dict[str, FieldCheck] = {
    "model": _filled,
    "max_tokens": _whole(1),
    "messages": _list_of(_MESSAGE, least=1),
    "system": _text_or(_list_of(_kinds({"text": _TEXT_BLOCK}), least=1)),
    "metadata": _shape({"user_id": _text}),
    "stop_sequences": _list_of(_text),
    "temperature": _number(0, 1),
    "top_p": _number(0, 1),
    "top_k": _whole(0),
    "stream": _not_streamed,
}
