"""Shell scripts that are part of the files of `container init`."""

from importlib import resources


def script(name: str) -> str:
    """Return the text of a script of this package."""
    return (resources.files("claude_proxy.sandbox.container.files") / "scripts" / name).read_text(
        "utf-8"
    )
