"""Groups file loader: TOML text to groups and policies whose names lead somewhere.

A name that nobody defines, and groups that hold each other, stop the conversion, each with its
place. Pure.
"""

from collections.abc import Iterator, Mapping

from claude_proxy.config import preset_files
from claude_proxy.config.allowlist.loader import unknown_preset
from claude_proxy.config.bw_claude.reader import PRESET, File, Group, Name, read
from claude_proxy.config.strict_yaml.fields import nearest
from claude_proxy.config.strict_yaml.nodes import Problems, gathered, quoted
from claude_proxy.errors import ConfigErrors

# Groups that were built in, and the presets that hold the same hosts.
BUILT_IN = {
    "claude": ("claude",),
    "gemini": ("gemini",),
    "development": ("github", "pypi", "npm", "cargo", "go"),
}


def load(text: str, *, name: str) -> File:
    """Return what a groups file says; raise ConfigErrors with every mistake in it."""
    problems = Problems(name)
    file = read(text, problems)
    if not problems:
        _note_wrong_names(file, problems)
    found = gathered(problems)
    if found:
        raise ConfigErrors(found)
    return file


def _note_wrong_names(file: File, problems: Problems) -> None:
    def note(what: str, name: Name, fix: str) -> None:
        problems.add_at(what, name.source.line, name.source.column, key=name.key, fix=fix)

    known = {**dict.fromkeys(BUILT_IN), **file.groups}
    for name in _group_names(file):
        preset = name.text.removeprefix(PRESET)
        if name.text.startswith(PRESET):
            if preset not in preset_files.names():
                error = unknown_preset(preset, where="")
                note(error.what, name, error.fix or "")
        elif name.text not in known:
            fix = nearest(name.text, known) or "name a group that the file defines"
            note(f"there is no group {quoted(name.text)}", name, fix)
    policies = {*preset_files.policy_names(), *file.policies}
    for name in file.tools.values():
        if name.text not in policies:
            fix = nearest(name.text, policies) or "name a policy that the file defines"
            note(f"there is no policy {quoted(name.text)}", name, fix)
    for trail, name in _circles(file.groups):
        note(f"groups hold each other: {' -> '.join(trail)}", name, "take one of them out")


def _group_names(file: File) -> Iterator[Name]:
    for group in file.groups.values():
        yield from group.groups
    for entry in file.policies.values():
        yield from entry.allow_groups
        yield from entry.deny_groups


def _circles(groups: Mapping[str, Group]) -> Iterator[tuple[tuple[str, ...], Name]]:
    """Yield each way that leads back to where it began, with the name that closes it."""
    done: set[str] = set()
    for start in groups:
        # Not by recursion: a chain of groups may be longer than the interpreter's stack.
        trail: list[tuple[str, Iterator[Name]]] = []
        if start not in done:
            trail.append((start, iter(groups[start].groups)))
        on_trail = {name: at for at, (name, _) in enumerate(trail)}
        while trail:
            here, names = trail[-1]
            name = next(names, None)
            if name is None:
                done.add(here)
                del on_trail[here]
                trail.pop()
            elif name.text in on_trail:
                way = [each for each, _ in trail[on_trail[name.text] :]]
                yield (*way, name.text), name
            elif name.text in groups and name.text not in done:
                on_trail[name.text] = len(trail)
                trail.append((name.text, iter(groups[name.text].groups)))
