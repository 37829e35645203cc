"""The report names the most harmful first, and shows no terminal what it would obey."""

from claude_proxy.sandbox.obeyed_report import printable, report
from claude_proxy.sandbox.obeyed_states import Change, Kind


def change(path: str, kind: Kind = Kind.FILE, by: str = "direnv") -> Change:
    return Change(path, "created or changed", kind, by)


def lines(*changes: Change, not_looked_at: tuple[str, ...] = ()) -> list[str]:
    return list(report(changes, not_looked_at))


def test_nothing_changed_is_no_line() -> None:
    assert lines() == []


def test_a_file_is_named_with_what_obeys_it() -> None:
    (line,) = lines(change("/p/.envrc"))

    assert line.startswith("warning: this run created or changed /p/.envrc (obeyed by direnv); ")


def test_repositories_come_before_any_number_of_files() -> None:
    many = [change(f"/p/{number:02}/CLAUDE.md") for number in range(40)]

    found = lines(*many, change("/p/z/.git", Kind.REPOSITORY, "Git"), change("/p/y", Kind.LAYOUT))

    assert "/p/z/.git" in found[0]
    assert "/p/y" in found[1]
    assert found[-1].startswith("warning: and 22 more such files: /p/18/CLAUDE.md, ")


def test_a_directory_goes_without_saying_where_something_in_it_is_named() -> None:
    (line,) = lines(change("/p/hooks"), change("/p/hooks/pre-commit"))

    assert "/p/hooks/pre-commit" in line


def test_programs_are_named_together_by_directory() -> None:
    found = lines(
        *(change(f"/p/.venv/bin/{name}", Kind.PROGRAM, "shells") for name in "abcdefg"),
        change("/p/bin/x", Kind.PROGRAM, "your shell"),
    )

    assert "7 files in /p/.venv/bin (run by shells): a, b, c, d, e and 2 more; " in found[0]
    assert "1 file in /p/bin (run by your shell): x; " in found[1]


def test_what_was_read_only_inside_was_changed_outside() -> None:
    changes = (change("/p/.envrc"), change("/p/.vscode/tasks.json"), change("/p/.envrc.d"))

    found = list(report(changes, (), {"/p/.envrc", "/p/.vscode"}))

    assert found[0] == (
        "note: changed outside while the run went on, and read-only inside: "
        "/p/.envrc, /p/.vscode/tasks.json"
    )
    assert "/p/.envrc.d" in found[1]


def test_a_protected_link_to_what_was_writable_is_not_said_to_be_read_only() -> None:
    changes = (change("/p/.vscode/tasks.json"),)

    (line,) = report(changes, (), {"/p/.vscode"}, {"/p/.vscode/tasks.json"})

    assert "this run created or changed /p/.vscode/tasks.json" in line


def test_what_was_not_looked_at_is_named() -> None:
    assert lines(not_looked_at=("/p/a", "/p/b"))[0].endswith("not looked at: /p/a, /p/b")


def test_a_name_cannot_move_the_cursor() -> None:
    (line,) = lines(change("/p/\x1b[2K\r\n\udcff\u202e/CLAUDE.md"))

    assert line.isprintable()
    assert r"/p/\x1b[2K\r\n\udcff\u202e/CLAUDE.md" in line
    assert printable("ordinary é") == "ordinary é"


def test_of_a_long_path_both_ends_are_shown() -> None:
    shown = printable(f"/begin/{'x' * 5000}/end")

    assert len(shown) < 310
    assert shown.startswith("/begin/x")
    assert shown.endswith("x/end")
