"""The relay's command line is the same on every machine."""

from claude_proxy.sandbox.container.files.way_out import python_words, relay_words


def test_no_version_of_python_is_in_it() -> None:
    assert "/run/way-out/runtime/bin/python" in python_words()


def test_python_is_started_by_its_own_loader_and_isolated() -> None:
    words = python_words()

    assert words[0] == "/run/way-out/runtime/ld.so"
    assert {"-I", "-S", "-B"} <= set(words)


def test_the_relay_listens_on_loopback_and_leads_to_the_mounted_socket() -> None:
    words = relay_words()

    assert words[words.index("--to") + 1] == "unix:/run/way-out/proxy.sock"
    assert [words[at + 1] for at, word in enumerate(words) if word == "--listen"] == [
        "127.0.0.1:3128",
        "127.0.0.1:1080",
    ]
