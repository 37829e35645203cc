"""Providers of the Anthropic API: their endpoints, and where their keys come from.

Default-deny: a key that is not known, empty or of the wrong type is a problem, with its place and
how to fix it; nothing is ignored or guessed. No API key is ever written in the file. Pure.
"""

import re
from collections.abc import Callable, Mapping

from claude_proxy.config.allowlist.credentials import CredentialReader
from claude_proxy.config.option_values import parse_base, parse_model
from claude_proxy.config.settings import Base
from claude_proxy.config.strict_yaml.fields import FieldReader, nearest
from claude_proxy.config.strict_yaml.nodes import (
    Broken,
    Node,
    Problems,
    YamlMapping,
    YamlScalar,
    quoted,
)
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.binding import Form
from claude_proxy.policy.credentials.sources import SecretSource
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority

FORMS = (Form.AUTO, Form.X_API_KEY, Form.BEARER)

PROVIDER_KEYS = ("endpoint", "from", "form", "models")
REQUIRED_PROVIDER_KEYS = ("endpoint", "from")
PROVIDER_NAME = lazy_pattern(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Provider:
    """A service that answers Anthropic's API, and the credential that it takes."""

    name: str
    endpoint: Base
    source: SecretSource | None = None  # None: the key that the gateway is given
    form: Form = Form.AUTO
    models: tuple[tuple[str, str], ...] = ()


ANTHROPIC = Provider("anthropic", Base(Scheme.HTTPS, Authority.of("api.anthropic.com", 443)))
BUILT_IN: Mapping[str, Provider] = {ANTHROPIC.name: ANTHROPIC}


def find_provider(own: Mapping[str, Provider], name: str, where: str) -> Provider:
    """Return the provider of a name; raise ConfigError if neither we nor the owner have it."""
    known = {**BUILT_IN, **own}
    if name not in known:
        raise ConfigError(
            f"there is no provider {quoted(name)}",
            where=where,
            fix=f"name one of {', '.join(sorted(known))}, or define it below providers: in "
            "config.yaml",
        )
    return known[name]


class ProviderReader(FieldReader):
    """Turns the nodes of `providers` into values; every mistake goes to `problems`."""

    def __init__(self, problems: Problems) -> None:
        super().__init__(problems, preset=None)

    def providers(self, node: Node, key: str) -> dict[str, Provider] | None:
        """Return the providers of a mapping by name; None if it is none."""
        if not isinstance(node, YamlMapping):
            self._problems.add("not a mapping", node, key=key, fix="write NAME: with its fields")
            return None
        found = {}
        for name, entry in node.entries:
            place = f"{key}.{name.text}"
            if PROVIDER_NAME.fullmatch(name.text) is None:
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
        fields = self._fields(node, key, PROVIDER_KEYS, _fix_among(PROVIDER_KEYS))
        for needed in REQUIRED_PROVIDER_KEYS:
            if needed not in fields:
                fix = _FIXES_OF_MISSING[needed]
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

    def _models(self, node: Node, key: str) -> tuple[tuple[str, str], ...] | None:
        """Return one model for all, or pairs of a requested model and the one sent instead."""
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
                fix = 'write the requested model and the one to send; "*" is any other one'
                self._problems.add(str(error), given, key=key, fix=fix)
        return tuple(found)

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


_FIXES_OF_MISSING = {
    "endpoint": "write the URL before /v1/messages, such as https://api.example.com/anthropic",
    "from": "say where the key comes from, such as {env: EXAMPLE_API_KEY}",
}


def _fix_among(known: tuple[str, ...]) -> Callable[[str], str]:
    def fix(name: str) -> str:
        return nearest(name, known) or f"the keys are {', '.join(known)}"

    return fix


def _one_model(text: str) -> tuple[str, str]:
    return parse_model(f"*={text}")
