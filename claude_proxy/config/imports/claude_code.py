"""Converter of Claude Code's settings.json: its sandbox's network, and permissions for domains.

Laws kept: no quiet downgrade, a denial always wins. As there, `WebFetch(domain:…)` under
`permissions` counts like the domains of `sandbox.network`. What is asked about there is not open
here. Pure.
"""

from collections.abc import Iterator

from claude_proxy.config.imports import domain_entries, srt
from claude_proxy.config.imports.draft import NARROWER, NOT_CARRIED, Draft
from claude_proxy.config.imports.json_text import JsonText
from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.location import Location

_web_fetch = lazy_pattern(r"WebFetch(?:\((.*)\))?").fullmatch
_DOMAIN = "domain:"
_NETWORK = ("sandbox", "network")
# Keys of `sandbox` that say how commands run, not where they may go.
_SILENT = frozenset(
    ("network", "enabled", "failIfUnavailable", "autoAllowBashIfSandboxed", "ignoreViolations")
)


def convert(text: str, *, name: str, plain_http: bool = False) -> Draft:
    """Return the policy of a settings file; ConfigError if it is not one."""
    draft = Draft(name, "claude-code")
    file = JsonText(text, name)
    allowed = [
        *file.texts(*_NETWORK, "allowedDomains"),
        *_domains(file, "allow", draft),
    ]
    denied = [*file.texts(*_NETWORK, "deniedDomains"), *_domains(file, "deny", draft)]
    asked = list(_domains(file, "ask", draft))
    for domain, source in asked:
        what = f"{quoted(domain)} is asked about there, and denied here"
        draft.remark(NARROWER, what, source, "allow it by an entry with ask: true")
    domain_entries.convert(
        domain_entries.read(allowed, draft, denied=False),
        domain_entries.read([*denied, *asked], draft, denied=True),
        draft,
        plain_http=plain_http,
    )
    srt.note_keys(file, file.table(*_NETWORK), _NETWORK, draft)
    for key, value in file.table("sandbox").items():
        if key not in _SILENT and value is not False:
            srt.note_other(file, key, draft, ("sandbox",))
    return draft


def _domains(file: JsonText, key: str, draft: Draft) -> Iterator[tuple[str, Location]]:
    """Yield the domains of the rules for WebFetch; those for other tools are not about hosts."""
    for text, source in file.texts("permissions", key):
        found = _web_fetch(text.strip())
        if found is None:
            continue
        if found[1] is not None and found[1].startswith(_DOMAIN):
            yield found[1].removeprefix(_DOMAIN), source
            continue
        what = f"permissions.{key}: {quoted(text)} is about the tool for every host"
        draft.remark(NOT_CARRIED, what, source, "keep it there; a policy names hosts")
