"""Templates of the service's files; their comments explain each line."""

from importlib import resources
from string import Template

_SUFFIX = ".in"


def filled(name: str, facts: dict[str, str]) -> str:
    """Return a template with its names filled in; drop a line whose only name is empty.

    KeyError if a name has no value.
    """
    text = (
        resources.files("claude_proxy.server.service") / "templates" / f"{name}{_SUFFIX}"
    ).read_text("utf-8")
    lines = [
        Template(line).substitute(facts)
        for line in text.splitlines()
        if facts.get(line.strip().removeprefix("$"), line) or not line.strip()
    ]
    return "\n".join(lines) + "\n"
