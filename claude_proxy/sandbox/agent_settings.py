"""Agent settings in a file that the agent also keeps data in: which parts programs outside obey.

Claude Code counts its starts in the same `~/.claude.json` that names MCP servers, so that the file
changes in every run. A run may have written it: it is read as data, without links, and bounded.
Source: https://code.claude.com/docs/en/settings.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping

_MOST_BYTES = 32 * 1024 * 1024
_OBEYED = frozenset(
    {
        *("mcpServers", "hooks", "env", "apiKeyHelper", "statusLine", "permissions", "plugins"),
        *("allowedTools", "enabledMcpjsonServers", "enableAllProjectMcpServers", "mcpContextUris"),
        *("hasTrustDialogAccepted", "hasClaudeMdExternalIncludesApproved", "enabledPlugins"),
        *("bypassPermissionsModeAccepted", "awsAuthRefresh", "awsCredentialExport"),
        *("extraKnownMarketplaces", "fileSuggestion", "sandbox"),
    }
)
_PROJECTS = "projects"


def obeyed_settings(path: str) -> Mapping[str, str] | None:
    """Return the obeyed parts of a JSON file by name; None if that is not known."""
    try:
        found = json.loads(_read(path))
    except (OSError, ValueError, RecursionError):
        return None
    return dict(_parts_of(found)) if isinstance(found, dict) else None


def _parts_of(found: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name in sorted(_OBEYED & found.keys()):
        yield name, json.dumps(found[name], sort_keys=True)
    projects = found.get(_PROJECTS)
    for project, settings in projects.items() if isinstance(projects, dict) else ():
        for name in sorted(_OBEYED & settings.keys()) if isinstance(settings, dict) else ():
            if settings[name]:  # empty lists are written for every new project
                yield f"{name} for {project}", json.dumps(settings[name], sort_keys=True)


def _read(path: str) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 - a descriptor with special flags
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(path)
        raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise ValueError(path)
    return raw
