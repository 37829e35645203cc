"""Command lines of a build name no network but the one that the engine is in."""

from pathlib import Path

from claude_proxy.sandbox.container.plan.build_words import (
    BuildFiles,
    build_words,
    check_words,
    variables,
)

FILES = BuildFiles(Path("/usr/bin/podman"), Path("/w/Containerfile"), Path("/w/c"), Path("/w/id"))


def words(**more: str) -> list[str]:
    return build_words(FILES, trust=Path("/r/trust"), arguments=more)


def test_a_build_uses_the_network_of_its_engine_and_no_resolver() -> None:
    found = words()

    assert found[found.index("--network") + 1] == "host"  # the engine's own, which is closed
    assert found[found.index("--dns") + 1] == "none"
    assert found.count("--network") == 1


def test_a_build_reads_what_it_trusts_without_writing_it() -> None:
    assert "/r/trust:/run/claude-proxy:ro" in words()


def test_a_build_has_no_raw_sockets_and_makes_no_devices() -> None:
    found = words()

    dropped = found[found.index("--cap-drop") + 1].split(",")
    assert {"CAP_NET_RAW", "CAP_MKNOD"} <= {*dropped}


def test_arguments_are_single_words() -> None:
    assert "A=b c; d" in words(A="b c; d")


def test_proxy_variables_are_inherited_and_others_are_arguments() -> None:
    found = variables({"HTTPS_PROXY": "p", "https_proxy": "p", "SSL_CERT_FILE": "/b"})

    assert found.inherited == {"HTTPS_PROXY": "p", "https_proxy": "p"}
    assert found.arguments == {"SSL_CERT_FILE": "/b"}


def test_a_check_has_no_network_no_capabilities_and_writes_nothing() -> None:
    found = " ".join(check_words("abc", ["claude", "--version"]))

    assert "--network none" in found
    assert "--cap-drop ALL" in found
    assert "--read-only" in found
    assert found.endswith("--entrypoint claude abc --version")
