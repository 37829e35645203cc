"""Each kind of files is what was reviewed.

The files below golden/ are what `claude-proxy container init KIND golden/CASE OPTIONS` writes, with
/src/project for the path of the directory.
"""

from pathlib import Path

import pytest

from claude_proxy.cli.main import main
from claude_proxy.sandbox.container.files.model import FileKind
from claude_proxy.sandbox.container.files.rendering import KINDS

GOLDEN = Path(__file__).with_name("golden")
CASES: dict[str, tuple[str, ...]] = {
    "compose": ("compose", "--engine", "podman"),
    "compose-root": ("compose", "--engine", "podman-root"),
    "compose-docker": ("compose", "--engine", "docker", "--image", "node:22", "--name", "agent"),
    "devcontainer": ("devcontainer", "--engine", "podman"),
    "devcontainer-root": ("devcontainer", "--engine", "podman-root"),
    "devcontainer-docker": ("devcontainer", "--engine", "docker", "--image", "node:22"),
    "quadlet": ("quadlet", "--engine", "podman"),
    "quadlet-root": ("quadlet", "--engine", "podman-root"),
    "github-action": ("github-action",),
    "kubernetes": ("kubernetes",),
    "kubernetes-one-pod": ("kubernetes", "--name", "claude", "--pods", "one", "--image", "a/b:1"),
}


def files_in(directory: Path) -> dict[str, str]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_text("utf-8") for path in paths}


@pytest.mark.parametrize("case", CASES)
def test_the_files_are_those_that_were_reviewed(case: str, tmp_path: Path) -> None:
    place = tmp_path / case
    place.mkdir()

    assert main(["container", "init", CASES[case][0], str(place), *CASES[case][1:]]) == 0

    written = {
        name: text.replace(str(place), "/src/project") for name, text in files_in(place).items()
    }
    assert written == files_in(GOLDEN / case)


def test_every_kind_has_a_case() -> None:
    assert {words[0] for words in CASES.values()} == {kind.value for kind in FileKind}
    assert set(KINDS) == set(FileKind)


def test_every_reviewed_file_has_a_case() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(CASES)
