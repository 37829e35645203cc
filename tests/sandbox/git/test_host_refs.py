"""All refs of a repository are in one file, and none of what other runs brought over."""

from pathlib import Path

from claude_proxy.sandbox.git.host_refs import object_in, packed_of

A, B = "a" * 40, "b" * 40


def put(host: Path, name: str, text: str) -> None:
    (host / name).parent.mkdir(parents=True, exist_ok=True)
    (host / name).write_text(text)


def test_packed_refs_alone_stay_as_they_are(tmp_path: Path) -> None:
    text = f"# pack-refs with: peeled fully-peeled sorted \n{A} refs/tags/v\n^{B}\n"
    put(tmp_path, "packed-refs", text)

    assert packed_of(tmp_path) == (text.encode(), {})


def test_loose_refs_replace_packed_ones_of_their_name(tmp_path: Path) -> None:
    put(tmp_path, "packed-refs", f"# x\n{A} refs/heads/main\n{A} refs/heads/old\n^{B}\n")
    put(tmp_path, "refs/heads/main", f"{B}\n")
    put(tmp_path, "refs/claude-proxy/r/main", f"{B}\n")
    put(tmp_path, "refs/heads/x.lock", f"{B}\n")
    put(tmp_path, "refs/remotes/origin/HEAD", "ref: refs/remotes/origin/main\n")
    (tmp_path / "refs/heads/link").symlink_to("main")

    packed, symbolic = packed_of(tmp_path)

    assert packed == f"{A} refs/heads/old\n{B} refs/heads/main\n".encode()
    assert symbolic == {"refs/remotes/origin/HEAD": b"ref: refs/remotes/origin/main\n"}


def test_a_repository_without_refs_has_none(tmp_path: Path) -> None:
    assert packed_of(tmp_path) == (b"", {})


def test_an_object_is_found_by_the_whole_name() -> None:
    packed = f"{A} refs/heads/main\n{B} refs/heads/main2\n".encode()

    assert object_in(packed, "refs/heads/main") == A
    assert object_in(packed, "refs/heads/main2") == B
    assert object_in(packed, "refs/heads/mai") == object_in(b"", "x") == ""
