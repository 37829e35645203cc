"""Agent settings: what of the user's is carried into a run's home, file by file; pure.

Law kept: secrets stay outside. Of a file with settings, the values are carried that an agent needs
to behave as the user is used to; values that may be secret are left out, and named.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.sandbox.plan import codex_settings

type Change = Callable[[dict[str, Any]], tuple[dict[str, Any], list[str]]]

MCP_SERVERS = "mcpServers"

# Of ~/.claude.json, which holds a part for each project, identifiers and caches too.
_CARRIED = frozenset(
    {
        "autoCompactEnabled",
        "autoConnectIde",
        "autoInstallIdeExtension",
        "autoUpdates",
        "bypassPermissionsModeAccepted",
        "diffTool",
        "editorMode",
        "hasAcknowledgedCostThreshold",
        "hasCompletedOnboarding",
        "hasSeenTasksHint",
        "installMethod",
        "lastOnboardingVersion",
        "lastReleaseNotesSeen",
        "messageIdleNotifThresholdMs",
        "numStartups",
        "optionAsMetaKeyInstalled",
        "preferredNotifChannel",
        "shiftEnterKeyBindingInstalled",
        "tipsHistory",
        "theme",
        "todoFeatureEnabled",
        "verbose",
    }
)
_CARRIED_OF_PROJECT = frozenset(
    {
        "allowedTools",
        "disabledMcpServers",
        "disabledMcpjsonServers",
        "enabledMcpServers",
        "enabledMcpjsonServers",
        "hasClaudeMdExternalIncludesApproved",
        "hasClaudeMdExternalIncludesWarningShown",
        "hasCompletedProjectOnboarding",
        "hasTrustDialogAccepted",
        "ignorePatterns",
        "projectOnboardingSeenCount",
    }
)
_SHOWN = 60  # characters of a server's command line
_KEY_TAIL = 20  # Claude Code remembers the answer about a key by its last characters
_SECRET_NAME = lazy_pattern(
    r"key|token|secret|passw|passphrase|credential|auth|cookie|session|headers|bearer|pat$|dsn",
    re.IGNORECASE,
)
_SECRET_VALUE = lazy_pattern(
    r"^(?:Bearer |Basic |sk-|sk_|pk_|rk_|gh[opsur]_|github_pat_|glpat-|xox[a-z]-|AKIA|ASIA|AIza"
    r"|ya29\.|eyJ|npm_|pypi-|hf_|dop_v1_|lin_api_|ntn_|secret_)",
    re.IGNORECASE,
)
# The same in the middle of a command line.
_WRITTEN_OUT = lazy_pattern(
    r"\b(?:bearer|basic)\s+[a-z0-9._~+/=-]{8,}"
    r"|(?:^|[^a-z0-9])(?:sk-|gh[opsur]_|github_pat_|glpat-|xox[a-z]-|AKIA|npm_|hf_)[a-z0-9_-]{8,}"
    r"|://[^/\s:@]+:[^/\s@]+@"
    r"|(?:key|token|secret|password|passwd)[\"']?\s*[=:]\s*[\"']?[a-z0-9_./+-]{12,}",
    re.IGNORECASE,
)
_LONG = 24  # a word without spaces, dots and slashes that is as long as this is hardly a name
_UUID = lazy_pattern(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PLAIN = lazy_pattern(r"[0-9.]{1,12}|true|false|on|off|yes|no", re.IGNORECASE)
_URL = lazy_pattern(r"[a-z][a-z0-9+.-]*://[^/?#]*@|[a-z][a-z0-9+.-]*://[^?#]*[?#].", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Carried:
    """What is written into the run's home, and what was left out of it."""

    content: bytes
    left_out: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()  # MCP servers that the agent starts inside


def filter_of(
    name: str, project: Path, environ: Mapping[str, str]
) -> Callable[[bytes], Carried | None] | None:
    """Return what filters a file, by its name below the home; None: it is copied as it is.

    The filter returns None for a file that it cannot read.
    """
    if name == ".claude.json":
        return lambda raw: _json(raw, lambda found: _of_claude_json(found, project, environ))
    if name == ".codex/config.toml":
        return lambda raw: _toml(raw, project)
    directory, _, last = name.rpartition("/")
    if directory in {".claude", ".gemini", ".qwen"} and last.endswith(".json"):
        return lambda raw: _json(raw, _of_settings)
    return None


def _toml(raw: bytes, project: Path) -> Carried | None:
    found = codex_settings.carried(raw.decode("utf-8", "replace"), project, _may_be_secret)
    return Carried(found[0].encode(), tuple(found[1])) if found else None


def _json(raw: bytes, change: Change) -> Carried | None:
    try:
        return _filtered(json.loads(raw), change)
    except (ValueError, RecursionError):
        return None


def _filtered(found: object, change: Change) -> Carried | None:
    if not isinstance(found, dict):
        return None
    changed, left_out = change(found)
    carried = {key: _without_secrets(value) for key, value in changed.items()}
    left_out += [f"a part of {key}" for key in changed if carried[key] != changed[key]]
    text = json.dumps(carried, indent=2).encode() + b"\n"
    return Carried(text, tuple(left_out), tuple(_names_of_servers(carried)))


def _of_claude_json(
    found: dict[str, Any], project: Path, environ: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    carried = {key: value for key, value in found.items() if key in _CARRIED}
    servers, left_out = _servers(found.get(MCP_SERVERS))
    if servers:
        carried[MCP_SERVERS] = servers
    approved = _approved(found.get("customApiKeyResponses"), environ)
    if approved:
        carried["customApiKeyResponses"] = {"approved": approved, "rejected": []}
    account = _account(found.get("oauthAccount"))
    if account:
        carried["oauthAccount"] = account
    own, more = _of_project(found.get("projects"), project)
    if own:
        carried["projects"] = {str(project): own}
    return carried, [*left_out, *more]


def _of_project(projects: object, project: Path) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(projects, dict):
        return {}, []
    entry = projects.get(str(project))
    entry = entry if isinstance(entry, dict) else {}
    carried = {key: value for key, value in entry.items() if key in _CARRIED_OF_PROJECT}
    # Claude Code trusts what is below a directory that is trusted.
    for above in project.parents:
        seen = projects.get(str(above))
        if isinstance(seen, dict) and seen.get("hasTrustDialogAccepted") is True:
            carried["hasTrustDialogAccepted"] = True
    servers, left_out = _servers(entry.get(MCP_SERVERS))
    if servers:
        carried[MCP_SERVERS] = servers
    return carried, left_out


def _approved(responses: object, environ: Mapping[str, str]) -> list[str]:
    """Return the answer about the key that the run itself may have; others are nobody's."""
    given = responses.get("approved") if isinstance(responses, dict) else None
    key = environ.get("ANTHROPIC_API_KEY", "")[-_KEY_TAIL:]
    return [key] if key and isinstance(given, list) and key in given else []


def _account(account: object) -> dict[str, Any]:
    if not isinstance(account, dict):
        return {}
    return {
        key: value
        for key, value in account.items()
        if isinstance(value, str | bool | int | None) and not _may_be_secret(str(key), value)
    }


def _of_settings(found: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    carried, left_out = dict(found), []
    servers, more = _servers(found.get(MCP_SERVERS))
    if MCP_SERVERS in found:
        carried[MCP_SERVERS] = servers
        left_out += more
    variables = found.get("env")
    if isinstance(variables, dict):
        kept = {k: v for k, v in variables.items() if not _may_be_secret(str(k), v)}
        left_out += [f"env.{name}" for name in variables if name not in kept]
        carried["env"] = kept
    return carried, left_out


def _servers(servers: object) -> tuple[dict[str, Any], list[str]]:
    """Return MCP servers without what may be secret, and what was left out."""
    if not isinstance(servers, dict):
        return {}, []
    carried: dict[str, Any] = {}
    left_out: list[str] = []
    for name, server in servers.items():
        if not isinstance(server, dict):
            continue
        if any(_is_secret_word(word, before) for before, word in _words(server)):
            left_out.append(f"MCP server {name}")
            continue
        without = {key: value for key, value in server.items() if key in _OF_SERVER}
        carried[str(name)] = without
        left_out += [
            f"{key} of MCP server {name}"
            for key, value in server.items()
            if key not in _OF_SERVER and value
        ]
    return carried, left_out


# Left out: env, headers, headersHelper, oauth.
_OF_SERVER = frozenset(
    {
        "type",
        "command",
        "args",
        "url",
        "httpUrl",
        "cwd",
        "timeout",
        "trust",
        "disabled",
        "description",
        "includeTools",
        "excludeTools",
        "alwaysAllow",
    }
)


def _without_secrets(value: Any) -> Any:
    """Return a value without the parts in which a secret is written out.

    Commands that were approved once, and those of hooks, may contain one. Of a list, the whole
    entry is left out, as half a hook would make the settings invalid.
    """
    if isinstance(value, list):
        return [_without_secrets(one) for one in value if not _holds_secret(one)]
    if isinstance(value, dict):
        return {
            key: _without_secrets(one)
            for key, one in value.items()
            if not (isinstance(one, str) and _WRITTEN_OUT.search(one))
        }
    return value


def _holds_secret(value: Any) -> bool:
    if isinstance(value, str):
        return _WRITTEN_OUT.search(value) is not None
    if isinstance(value, dict):
        return any(_holds_secret(one) for one in value.values())
    return isinstance(value, list) and any(_holds_secret(one) for one in value)


def _names_of_servers(carried: Mapping[str, Any]) -> Iterator[str]:
    """Yield each MCP server of some settings, with what starts it."""
    projects = carried.get("projects")
    for place in (carried, *(projects.values() if isinstance(projects, dict) else ())):
        servers = place.get(MCP_SERVERS) if isinstance(place, dict) else None
        for name, server in servers.items() if isinstance(servers, dict) else ():
            start = " ".join(word for _, word in _words(server))
            yield f"{name} ({start[:_SHOWN]})"


def _words(server: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each word of a server's command line, with the word before it."""
    args = server.get("args")
    words = [server.get("command"), *(args if isinstance(args, list) else [])]
    words += [server.get("url"), server.get("httpUrl")]
    before = ""
    for word in words:
        if isinstance(word, str):
            yield before, word
            before = word


def _is_secret_word(word: str, before: str) -> bool:
    name, equals, value = word.partition("=")
    if _URL.match(word) or _looks_random(word):
        return True
    if equals:
        return bool(value) and _may_be_secret(name, value)
    option = before if before.startswith("-") and "=" not in before else ""
    return bool(option and _SECRET_NAME.search(option) and not word.startswith("-")) or (
        bool(_SECRET_VALUE.match(word)) or bool(re.search(r":\s*Bearer\s", word))
    )


def _may_be_secret(name: str, value: object) -> bool:
    text = value if isinstance(value, str) else ""
    if _PLAIN.fullmatch(text):  # MAX_THINKING_TOKENS is a number
        return False
    return bool(
        (text and _SECRET_NAME.search(name))
        or _SECRET_VALUE.match(text)
        or _URL.match(text)
        or _looks_random(text)
    )


def _looks_random(word: str) -> bool:
    """Tell whether a word is like a key: long, of letters and digits, and no path or package."""
    if len(word) < _LONG or not re.fullmatch(r"[A-Za-z0-9_+=-]+", word) or _UUID.fullmatch(word):
        return False
    return bool(re.search(r"[0-9]", word) and re.search(r"[A-Za-z]", word))
