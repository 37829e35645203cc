"""Reads gateway.yaml: which providers there are, and what holds for the gateway; pure.

Law kept: default-deny (1). A key that is not known, empty or of the wrong type is a problem, with
its place and how to fix it; nothing is ignored or guessed. No key of an API stands in the file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from claude_proxy.config.allowlist.credentials import CredentialReader
from claude_proxy.config.option_values import parse_base, parse_model, parse_size, parse_timeout
from claude_proxy.config.settings import Base, Ceilings, GatewayMode
from claude_proxy.config.strict_yaml.fields import FieldReader, nearest
from claude_proxy.config.strict_yaml.nodes import (
    Broken,
    Node,
    Problems,
    YamlMapping,
    YamlScalar,
    parse,
    quoted,
)
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.decision import Form, SecretSource
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority

NAME = "gateway.yaml"
FORMS = (Form.AUTO, Form.X_API_KEY, Form.BEARER)
LEAST_BODY = 1024

_PROVIDER_FIELDS = ("endpoint", "from", "form", "models")
_FIELDS = (
    *("provider", "providers", "mode", "timeout", "max_body"),
    *("max_requests_per_minute", "max_tokens_per_day"),
)
KEYS = (*_FIELDS, *_PROVIDER_FIELDS)
_PROVIDER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_COUNT = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Provider:
    """Somebody who answers Anthropic's API, and what it takes to be let in there."""

    name: str
    endpoint: Base
    source: SecretSource | None = None  # None: the key that is given beside it
    form: Form = Form.AUTO
    models: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayFile:
    """What one gateway.yaml says; None: it says nothing of it."""

    name: str = NAME
    provider: str | None = None
    providers: Mapping[str, Provider] = field(default_factory=dict)
    mode: GatewayMode | None = None
    timeout_s: float | None = None
    request_bytes: int | None = None
    ceilings: Ceilings = field(default_factory=Ceilings)


ANTHROPIC = Provider("anthropic", Base(Scheme.HTTPS, Authority.of("api.anthropic.com", 443)))
BUILT_IN: Mapping[str, Provider] = {ANTHROPIC.name: ANTHROPIC}


def load(text: str, *, name: str = NAME) -> GatewayFile:
    """Return what the file says; ConfigErrors tells of everything that is wrong with it."""
    problems = Problems(name)
    root = parse(text, problems)
    found = GatewayFile(name)
    if isinstance(root, YamlMapping):
        found = _Reader(problems).file_of(root)
    elif root is not None:
        problems.add("the file is not a mapping", root, fix="write provider: and providers:")
    problems.raise_if_any()
    return found


def chosen(file: GatewayFile, name: str, where: str) -> Provider:
    """Return the provider of a name; ConfigError if there is none."""
    known = {**BUILT_IN, **file.providers}
    if name not in known:
        raise ConfigError(
            f"there is no provider {quoted(name)}",
            where=where,
            fix=f"name one of {', '.join(sorted(known))}, or define it in {file.name}",
        )
    return known[name]


class _Reader(FieldReader):
    """Turns the file's nodes into values; every mistake goes to `problems`."""

    def __init__(self, problems: Problems) -> None:
        super().__init__(problems, preset=None)

    def file_of(self, root: YamlMapping) -> GatewayFile:
        fields = self._fields(root, "", _FIELDS, _fix_among(_FIELDS))
        read = self._top
        providers = read(fields, "providers", self._providers) or {}
        return GatewayFile(
            name=self._problems.name,
            provider=read(fields, "provider", self._text),
            providers=providers,
            mode=read(fields, "mode", self._mode),
            timeout_s=read(fields, "timeout", self._parsed(parse_timeout, "30s, 5m")),
            request_bytes=read(fields, "max_body", self._body),
            ceilings=Ceilings(
                read(fields, "max_requests_per_minute", self._count),
                read(fields, "max_tokens_per_day", self._count),
            ),
        )

    def _top[T](
        self, fields: dict[str, Node], name: str, read: Callable[[Node, str], T | None]
    ) -> T | None:
        node = fields.get(name)
        return None if node is None else read(node, name)

    def _providers(self, node: Node, key: str) -> dict[str, Provider] | None:
        if not isinstance(node, YamlMapping):
            self._problems.add("not a mapping", node, key=key, fix="write NAME: with its fields")
            return None
        found = {}
        for name, entry in node.entries:
            place = f"{key}.{name.text}"
            if _PROVIDER_NAME.fullmatch(name.text) is None:
                fix = "a name has lower-case letters, digits, dots, dashes and underscores"
                self._problems.add("not the name of a provider", name, key=key, fix=fix)
            elif provider := self._provider(entry, name.text, place):
                found[name.text] = provider
        return found

    def _provider(self, node: Node, name: str, key: str) -> Provider | None:
        if not isinstance(node, YamlMapping):
            fix = "write endpoint: and from: below it"
            self._problems.add("not a mapping", node, key=key, fix=fix)
            return None
        fields = self._fields(node, key, _PROVIDER_FIELDS, _fix_among(_PROVIDER_FIELDS))
        for needed in ("endpoint", "from"):
            if needed not in fields:
                fix = _MENDS_OF_MISSING[needed]
                self._problems.add(f"{needed} is missing", node, key=key, fix=fix)
        endpoint = self._read(fields, "endpoint", key, self._endpoint)
        source = self._source_at(fields.get("from"), f"{key}.from")
        form = self._read(fields, "form", key, self._form)
        models = self._read(fields, "models", key, self._models)
        if endpoint is None:
            return None
        return Provider(name, endpoint, source, form or Form.AUTO, models or ())

    def _endpoint(self, node: Node, key: str) -> Base | None:
        return self._parsed(parse_base, "https://api.example.com/anthropic")(node, key)

    def _source_at(self, node: Node | None, key: str) -> SecretSource | None:
        if node is None or isinstance(node, Broken):
            return None
        return CredentialReader(self._problems).source_at(node, key)

    def _form(self, node: Node, key: str) -> Form | None:
        text = self._choice(node, key, [form.value for form in FORMS])
        return None if text is None else Form(text)

    def _mode(self, node: Node, key: str) -> GatewayMode | None:
        text = self._choice(node, key, [mode.value for mode in GatewayMode])
        return None if text is None else GatewayMode(text)

    def _models(self, node: Node, key: str) -> tuple[tuple[str, str], ...] | None:
        """Return one model for all, or a map from the asked to the given ones."""
        if not isinstance(node, YamlMapping):
            model = self._parsed(_one_model, "claude-opus-4-1")(node, key)
            return None if model is None else (model,)
        found = []
        for asked, given in node.entries:
            text = self._text(given, f"{key}.{asked.text}")
            if text is None:
                continue
            try:
                found.append(parse_model(f"{asked.text}={text}"))
            except ValueError as error:
                fix = 'write the asked model and the given one; "*" is any other one'
                self._problems.add(str(error), given, key=key, fix=fix)
        return tuple(found)

    def _body(self, node: Node, key: str) -> int | None:
        return self._parsed(body_size, "32M")(node, key)

    def _count(self, node: Node, key: str) -> int | None:
        if isinstance(node, YamlScalar) and node.plain and _COUNT.fullmatch(node.text):
            return int(node.text)
        fix = "write one, such as 60"
        self._problems.add("not a whole number above 0", node, key=key, fix=fix)
        return None

    def _parsed[T](self, read: Callable[[str], T], example: str) -> Callable[[Node, str], T | None]:
        def parsed(node: Node, key: str) -> T | None:
            if not isinstance(node, YamlScalar):
                fix = f"write it like {example}"
                self._problems.add("not a single value", node, key=key, fix=fix)
                return None
            try:
                return read(node.text)
            except ValueError as error:
                self._problems.add(str(error), node, key=key, fix=f"write it like {example}")
                return None

        return parsed


_MENDS_OF_MISSING = {
    "endpoint": "write the URL before /v1/messages, such as https://api.example.com/anthropic",
    "from": "say where the key comes from, such as {env: EXAMPLE_API_KEY}",
}


def _fix_among(known: tuple[str, ...]) -> Callable[[str], str]:
    def fix(name: str) -> str:
        return nearest(name, known) or f"the keys are {', '.join(known)}"

    return fix


def _one_model(text: str) -> tuple[str, str]:
    return parse_model(f"*={text}")


def body_size(text: str) -> int:
    """Return a number of bytes that a request can be bounded to."""
    size = parse_size(text)
    if size < LEAST_BODY:
        raise ValueError(f"{quoted(text)} is less than {LEAST_BODY} bytes")
    return size
