"""A project's transcripts are those that were made in it, not all that lie in one directory."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.transcripts import own

PROJECT = Path("/src/a-b")
OWN = b'{"type":"summary"}\n{"cwd":"/src/a-b","text":"hi"}\n{"cwd":"/elsewhere"}\n'
OTHER = b'{"cwd":"/src/a/b"}\n{"cwd":"/src/a-b"}\n'


def chosen(files: dict[str, bytes]) -> set[str]:
    return own(files, lambda name, size: files[name][:size], PROJECT)


def test_only_what_was_made_in_the_project_is_its_own() -> None:
    files = {
        "1.jsonl": OWN,
        "2.jsonl": OTHER,
        "1/subagents/x.jsonl": b"",
        "2/subagents/x.jsonl": b"",
        "memory/MEMORY.md": b"",
    }

    assert chosen(files) == {"1.jsonl", "1/subagents/x.jsonl"}


def test_what_lies_beside_the_transcripts_of_one_project_is_its_own() -> None:
    files = {"1.jsonl": OWN, "memory/MEMORY.md": b"", "3/tool-results/y": b""}

    assert chosen(files) == set(files)


@pytest.mark.parametrize(
    "head", [b"", b"{}", b'{"cwd": 1}', b'{"cwd":"\\ud800\\"', b'{"cwd":"/src/a-bc"}', b"\xff"]
)
def test_a_transcript_that_does_not_say_where_it_was_made_is_left_out(head: bytes) -> None:
    assert chosen({"1.jsonl": head}) == set()


def test_a_session_in_a_directory_of_the_project_is_the_projects() -> None:
    assert chosen({"1.jsonl": b'{"cwd":"/src/a-b/deep"}'}) == {"1.jsonl"}
