"""Reference of options and config.yaml in Markdown, made from the table of options. Pure."""

from collections.abc import Iterator

from claude_proxy.config.config_yaml import SECTIONS
from claude_proxy.config.option_kinds import name_of
from claude_proxy.config.option_table import (
    OptionField,
    Subcommand,
    Topic,
    fields_in_section,
    fields_of,
)

_HEADINGS = {
    "": "Keys at the top: options that several commands take",
    "serve": "Keys below `serve:`",
    "gateway": "Keys below `gateway:`",
    "run": "Keys below `run:`",
}


def keys_page() -> str:
    """Return the tables of config.yaml's keys, a section each."""
    return "\n".join(_keys_page())


def _keys_page() -> Iterator[str]:
    for section in ("", *SECTIONS):
        yield f"## {_HEADINGS[section]}\n"
        yield "| key | value | default | option | variable | |"
        yield "|---|---|---|---|---|---|"
        for field in fields_in_section(section):
            yield _row(_key_cells(field))
        yield ""


def _key_cells(field: OptionField) -> list[str]:
    value = name_of(field.kind)
    return [
        f"`{field.name}`",
        f"list of {value}" if field.repeatable else value,
        default_text(field),
        f"`{field.option(field.commands[0])}`",
        f"`{field.variable}`" if field.variable else "",
        field.help,
    ]


def options_page(command: Subcommand) -> str:
    """Return the tables of a command's options, a topic each."""
    return "\n".join(_options_page(command))


def _options_page(command: Subcommand) -> Iterator[str]:
    for topic in Topic:
        rows = [field for field in fields_of(command) if field.topic is topic]
        if not rows:
            continue
        yield f"### {topic}\n"
        yield "| option | variable | key in config.yaml | default | |"
        yield "|---|---|---|---|---|"
        for field in rows:
            cells = [
                ", ".join(f"`{name}`" for name in (field.option(command), *field.more_spellings)),
                f"`{field.variable}`" if field.variable else "",
                f"`{field.key}`" if field.in_file else "",
                default_text(field),
                field.help_in(command),
            ]
            yield _row(cells)
        yield ""


def default_text(field: OptionField) -> str:
    """Return the default of an option as the tables show it."""
    if field.default_in_words:
        return field.default_in_words
    if field.default is None or field.default == ():
        return ""
    if isinstance(field.default, bool):
        return "true" if field.default else "false"
    return str(field.default)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
