"""Reference page of the policy file format, in Markdown; generated from the table of keys. Pure."""

from collections.abc import Iterable, Iterator

from claude_proxy.config.allowlist import format as table
from claude_proxy.config.allowlist.format import Field, FileRole

_SECTIONS = (
    ("Entries of `allow`", table.ALLOW),
    ("A preset in `allow`", table.PRESET_ENTRY),
    ("Entries of `deny`", table.DENY),
    ("Entries of `credentials`", table.CREDENTIAL),
    ("`from`: where a secret is kept", table.SOURCE),
    ("Entries of `anthropic`", table.ANTHROPIC),
)
_WORDS = {
    FileRole.POLICY: "policy",
    FileRole.INCLUDED: "included",
    FileRole.PRESET: "preset",
    FileRole.PROJECT: "project",
}


def page(level: int = 2) -> str:
    """Return a section for each table of keys, with headings of a level."""
    mark = "#" * level
    parts = [f"{mark} Keys of a file\n\n{''.join(_table(table.FILE, places=True))}"]
    parts += [f"{mark} {title}\n\n{''.join(_table(fields))}" for title, fields in _SECTIONS]
    return "\n".join(parts)


def _table(fields: Iterable[Field], *, places: bool = False) -> Iterator[str]:
    yield "| key | type | default |" + (" in |" if places else "") + " what it is | example |\n"
    yield "| --- | --- | --- |" + (" --- |" if places else "") + " --- | --- |\n"
    for field in fields:
        where = ", ".join(word for role, word in _WORDS.items() if role in field.where)
        cells = (
            f"`{field.name}`",
            field.kind.value,
            field.default,
            *((where,) if places else ()),
            field.help,
            f"`{field.name}: {field.example}`" if field.example else "",
        )
        yield f"| {' | '.join(map(_cell, cells))} |\n"


def _cell(text: str) -> str:
    # A star would begin emphasis outside of code, and a bar another cell.
    quoted = text if "`" in text else text.replace("*", "\\*")
    return quoted.replace("|", "\\|")
