"""What a program prints is passed on as it comes, and kept."""

from claude_proxy.sandbox.container.workbench import OutputTail


def test_output_is_passed_on_and_kept() -> None:
    seen = bytearray()
    tail = OutputTail(seen.extend)

    tail.take(b"one\n")
    tail.take(b"two\n")

    assert seen == tail.data == b"one\ntwo\n"
