"""Build arguments are declared in every stage of a Containerfile, and nowhere else."""

import pytest

from claude_proxy.sandbox.container.plan.containerfile import with_arguments


def test_each_stage_declares_the_arguments_after_its_from() -> None:
    text = "ARG BASE\nFROM ${BASE} AS one\nRUN a\n\nfrom two\nCOPY --from=one /a /a\n"

    assert with_arguments(text, ["A", "B"]) == (
        "ARG BASE\nFROM ${BASE} AS one\nARG A B\nRUN a\n\nfrom two\nARG A B\n"
        "COPY --from=one /a /a\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "RUN echo \\\n  FROM x\n",
        "RUN echo \\\n# FROM x\n  FROM y\n",
        "RUN echo \\\n\nFROM x\n",
        "# FROM x\n",
        "RUN cat <<END\nFROM x\nEND\n",
        "RUN cat <<-'END' > /a\nFROM x\n\tEND\n",
        "COPY <<A <<B /c/\nFROM x\nA\nFROM y\nB\n",
        "# escape=`\nRUN echo `\nFROM x\n",
        "LABEL FROM=x\n",
    ],
)
def test_what_only_looks_like_a_stage_is_left_alone(text: str) -> None:
    assert with_arguments(text, ["A"]) == text


def test_a_from_over_several_lines_is_one_instruction() -> None:
    text = "FROM \\\n  base \\\n  AS x\nRUN y\n"

    assert with_arguments(text, ["A"]) == "FROM \\\n  base \\\n  AS x\nARG A\nRUN y\n"


def test_a_heredoc_ends_and_the_stage_after_it_counts() -> None:
    text = "FROM a\nRUN <<END\nFROM x\nEND\nFROM b\n"

    assert with_arguments(text, ["A"]).count("ARG A") == 2


def test_without_arguments_nothing_is_added() -> None:
    assert with_arguments("FROM a\nRUN b", []) == "FROM a\nRUN b\n"
