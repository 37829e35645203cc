"""Where the home of a container is, as its engine says; and the commands that use it."""

from pathlib import Path

import pytest

from claude_proxy.cli.container_history import home_of
from claude_proxy.cli.main import main
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.plan.model import EngineKind, Way
from claude_proxy.sandbox.container.store import StoredContainer

PODMAN = """\
#!/bin/sh
case "$1" in
    container) echo '[{{"Id": "1", "Name": "web", "State": {{"Status": "{status}", "Pid": 0}},
        "Config": {{"Labels": {{}}}}, "Image": "x"}}]' ;;
    volume) echo '[{{"Mountpoint": "{home}"}}]' ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "volume"
    (home / ".claude").mkdir(parents=True)
    (home / ".claude/history.jsonl").write_text("{}\n")
    return home


@pytest.fixture
def statedir(tmp_path: Path) -> str:
    store.make_directory(store.directory_of(tmp_path / "state", "web"))
    stored = StoredContainer(
        *("web", EngineKind.PODMAN, "agents", "1", "", Way.ENTER, 0.0, "/p", ("claude",), ()),
        plan="",
        volume="claude-proxy-web",
    )
    store.save(tmp_path / "state", stored)
    return str(tmp_path / "state")


@pytest.fixture
def engine(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(PODMAN.format(status="exited", home=home))
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def test_the_home_is_where_the_engine_keeps_the_volume(
    engine: Path, statedir: str, home: Path
) -> None:
    assert engine.exists()
    assert home_of(statedir, "web") == home


def test_a_running_container_has_to_be_stopped_first(
    engine: Path, statedir: str, home: Path
) -> None:
    engine.write_text(PODMAN.format(status="running", home=home))

    with pytest.raises(ClaudeProxyError, match="is running") as caught:
        home_of(statedir, "web")

    assert "container stop web" in str(caught.value.fix)


def test_a_history_goes_out_and_in_again(
    engine: Path, statedir: str, home: Path, tmp_path: Path
) -> None:
    assert engine.exists()
    file = tmp_path / "history.tar.gz"
    where = ["--statedir", statedir]

    assert main(["container", "export", "web", str(file), *where]) == 0
    (home / ".claude/history.jsonl").unlink()
    assert main(["container", "import", "web", str(file), *where]) == 0

    assert (home / ".claude/history.jsonl").read_text() == "{}\n"
