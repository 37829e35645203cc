"""Watched trees: where a run may write what programs outside obey or run; pure."""

from collections.abc import Iterator
from pathlib import Path

from claude_proxy.sandbox.plan import obeyed_files
from claude_proxy.sandbox.plan.model import WatchedTree
from claude_proxy.sandbox.plan.mount_layout import Layout


def programs_in_path(path: str, project: Path, layout: Layout) -> Iterator[WatchedTree]:
    """Yield the directories of PATH that the run may write; a relative one is in the project."""
    for entry in dict.fromkeys(path.split(":")):
        directory = project / entry
        if ".." not in directory.parts and layout.is_written(directory):
            yield WatchedTree(directory, programs=True, by="your shell, as PATH names it")


def of_agent(path: Path) -> WatchedTree:
    """Return an agent's own directory or file in the home; everything but its data is obeyed."""
    tool = obeyed_files.obeying_all_in(str(path.parent), path.name.removesuffix(".json"))
    return WatchedTree(path, whole=True, by=tool.name if tool else "programs outside")
