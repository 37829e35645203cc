"""Laws of the reference page: every key is on it, in tables that Markdown reads."""

from claude_proxy.config.allowlist import format as table
from claude_proxy.config.allowlist.reference import page

TABLES = (table.FILE, table.ALLOW, table.DENY, table.CREDENTIAL, table.SOURCE, table.ANTHROPIC)


def test_every_key_is_on_the_page() -> None:
    text = page()

    for fields in TABLES:
        for field in fields:
            assert f"| `{field.name}` | {field.kind.value} |" in text


def test_every_row_has_the_cells_of_its_heading() -> None:
    for block in page(3).split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        cells = {row.replace("\\|", "").count("|") for row in rows}
        assert len(cells) <= 1


def test_a_star_outside_of_code_is_escaped() -> None:
    assert "\\*.example.com: its subdomains" in page()
