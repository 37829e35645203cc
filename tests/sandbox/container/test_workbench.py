"""What a program prints is passed on line by line, and kept."""

import pytest

from claude_proxy.sandbox.container.workbench import OutputTail


def test_output_is_passed_on_and_kept() -> None:
    seen = bytearray()
    tail = OutputTail(seen.extend)

    tail.take(b"one\n")
    tail.take(b"two\n")

    assert seen == tail.data == b"one\ntwo\n"


def test_a_line_that_is_not_ended_is_passed_on_at_the_end() -> None:
    seen = bytearray()
    tail = OutputTail(seen.extend)

    tail.take(b"one\ntw")
    tail.take(b"o")
    tail.finish()
    tail.finish()

    assert seen == b"one\ntwo"


def test_a_progress_bar_is_seen_as_it_grows() -> None:
    seen = bytearray()

    OutputTail(seen.extend).take(b"10%\r20%\r")

    assert seen == b"10%\r20%\r"


@pytest.mark.parametrize(
    "line",
    [
        b"STEP 2/5: ARG ws_proxy WS_PROXY APT_CONFIG\n",
        b"[2/2] STEP 2/12: ARG ws_proxy WS_PROXY\n",
        b"[Warning] one or more build args were not consumed: [APT_CONFIG WS_PROXY]\n",
    ],
)
def test_lines_about_the_arguments_of_the_proxy_are_only_kept(line: bytes) -> None:
    seen = bytearray()
    tail = OutputTail(seen.extend)

    tail.take(b"one\n" + line + b"STEP 3/5: ARG BASE\n")

    assert seen == b"one\nSTEP 3/5: ARG BASE\n"
    assert line in tail.data


def test_a_line_without_an_end_is_not_waited_for_without_limit() -> None:
    seen = bytearray()
    tail = OutputTail(seen.extend)

    tail.take(b"x" * 100_000)

    assert len(seen) == 100_000
