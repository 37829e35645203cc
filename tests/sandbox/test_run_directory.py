"""A run's directory is private to its owner, and what dead runs leave is removed."""

import fcntl
import json
import os
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox import run_directory
from claude_proxy.sandbox.run_directory import RunDirectory, start_time_of
from claude_proxy.system.runs import proves_run

COMMAND = ("/usr/bin/claude", "-p", "hi")

# Makes a directory, says where it is, and goes on living, or not.
MAKER = """
import sys
from pathlib import Path
from claude_proxy.sandbox.run_directory import RunDirectory
made = RunDirectory.make(["claude"], name=sys.argv[2], above=Path(sys.argv[1]))
for pid in sys.argv[3:]:
    made.note(int(pid))
print(made.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def above() -> Iterator[Path]:
    """A directory for runs, with a path that a Unix socket's name can hold."""
    with tempfile.TemporaryDirectory(prefix="runs-") as directory:
        yield Path(directory) / "claude-proxy"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is ended."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


class Other:
    """Another launcher, in a process of its own."""

    def __init__(self, above: Path, name: str, *processes: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAKER, str(above), name, *map(str, processes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(run_directory.__file__).parents[2])},
        )
        assert self.process.stdout is not None
        self.path = Path(self.process.stdout.readline().decode().strip())

    def kill(self) -> None:
        """End it as nothing can be prepared for."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- where it is, and who may enter


def test_a_run_has_its_own_directory_that_no_other_user_may_enter(above: Path) -> None:
    with RunDirectory.make(COMMAND, above=above) as made:
        assert (mode(above), mode(made.path)) == (0o700, 0o700)
        assert made.path.parent == above


def test_two_directories_of_one_name_cannot_be_guessed_from_each_other(above: Path) -> None:
    with RunDirectory.make(COMMAND, above=above, name="same") as first:
        one = first.path.name
    with RunDirectory.make(COMMAND, above=above, name="same") as second:
        other = second.path.name

    assert one != other
    assert len(one.rpartition(".")[2]) == len(secrets.token_hex(8))


def test_its_files_are_private_to_the_owner(above: Path) -> None:
    with RunDirectory.make(COMMAND, above=above) as made:
        path = made.write("allowlist.yaml", b"allow: []\n")

        assert (path.read_bytes(), mode(path)) == (b"allow: []\n", 0o600)


def test_its_socket_is_private_to_the_owner(above: Path) -> None:
    with RunDirectory.make(COMMAND, above=above) as made, made.listen() as listener:
        assert mode(made.socket_path) == 0o600
        assert listener.getsockname() == str(made.socket_path)


def test_it_is_removed_when_the_run_ends(above: Path) -> None:
    with RunDirectory.make(COMMAND, above=above) as made, made.listen():
        made.write("file", b"")

    assert not made.path.exists()


def test_a_directory_that_others_may_enter_is_refused(above: Path) -> None:
    above.mkdir(mode=0o755)

    with pytest.raises(ConfigError, match="not owned by this user"):
        RunDirectory.make(COMMAND, above=above)


def test_a_link_instead_of_the_directory_is_refused(above: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    above.symlink_to(tmp_path)

    with pytest.raises(ConfigError, match="cannot be created"):
        RunDirectory.make(COMMAND, above=above)

    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(above: Path) -> None:
    above.mkdir(mode=0o700)
    os.chown(above, 65534, 65534)

    with pytest.raises(ConfigError, match="not owned by this user"):
        RunDirectory.make(COMMAND, above=above)


def test_a_path_too_long_for_a_socket_is_an_error_that_says_so(above: Path) -> None:
    above.mkdir(mode=0o700)
    deep = above / ("x" * 90)

    with pytest.raises(ConfigError, match="too long"):
        RunDirectory.make(COMMAND, above=deep)

    assert [entry.name for entry in deep.iterdir()] == [".lock"]


# --- names


def test_a_name_is_made_of_the_command(above: Path) -> None:
    with RunDirectory.make(COMMAND, above=above) as made:
        assert made.name.startswith("claude-")
        run_directory.check_name(made.name)


@pytest.mark.parametrize("word", ["", "---", "ünï/çødé", "a" * 300, "/bin/.hidden", "-rf"])
def test_every_command_makes_a_name(above: Path, word: str) -> None:
    with RunDirectory.make([word], above=above) as made:
        run_directory.check_name(made.name)


def test_a_name_can_be_chosen(above: Path) -> None:
    with RunDirectory.make(COMMAND, above=above, name="nightly.build-1") as made:
        assert made.name == "nightly.build-1"
        assert [run.name for run in run_directory.living(above)] == ["nightly.build-1"]


@pytest.mark.parametrize(
    "name", ["", "a b", "../up", "a/b", ".dot", "-dash", "x" * 33, "né", "a\n"]
)
def test_a_name_that_is_not_a_valid_file_name_is_refused(above: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        RunDirectory.make(COMMAND, above=above, name=name)


def test_the_name_of_a_living_run_is_refused(above: Path) -> None:
    with (
        RunDirectory.make(COMMAND, above=above, name="mine"),
        pytest.raises(ConfigError, match="already"),
    ):
        RunDirectory.make(COMMAND, above=above, name="mine")


# --- the living and the dead


def test_a_record_tells_who_runs_what(above: Path) -> None:
    with RunDirectory.make(COMMAND, above=above, name="mine"):
        (run,) = run_directory.living(above)

    assert run == run_directory.Run("mine", os.getpid(), "claude")
    assert run_directory.living(above) == []


def test_the_arguments_of_a_command_are_written_nowhere(above: Path) -> None:
    with RunDirectory.make(["/opt/bin/claude", "--token=secret"], above=above) as made:
        files = [path for path in made.path.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if b"secret" in path.read_bytes()]


def test_a_run_proves_its_name_by_its_token_while_it_lives(above: Path) -> None:
    with RunDirectory.make(["claude"], name="mine", above=above) as made:
        assert proves_run(above, "mine", made.token)
        assert not proves_run(above, "other", made.token)

    assert not proves_run(above, "mine", made.token)


def test_the_directory_of_a_living_launcher_is_kept(above: Path) -> None:
    other = Other(above, "other")

    with RunDirectory.make(COMMAND, above=above):
        assert other.path.exists()
        assert {run.name for run in run_directory.living(above)} >= {"other"}

    other.kill()


def test_the_next_start_removes_the_directory_of_a_killed_launcher(above: Path) -> None:
    other = Other(above, "other")
    other.kill()
    assert other.path.exists()

    with RunDirectory.make(COMMAND, above=above, name="other"):
        assert not other.path.exists()


def test_the_processes_of_a_killed_launcher_are_killed(
    above: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    other = Other(above, "other", sleeper.pid)
    other.kill()

    with RunDirectory.make(COMMAND, above=above):
        assert sleeper.wait(60) == -signal.SIGKILL


def test_the_processes_of_a_living_launcher_are_left_alone(
    above: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    other = Other(above, "other", sleeper.pid)

    with RunDirectory.make(COMMAND, above=above):
        assert sleeper.poll() is None

    other.kill()


@pytest.mark.parametrize(
    "lie", [{"birth": 1}, {"boot": "another"}, {"pids": "pid:[1]"}, {"pid": "1"}, {"pid": -1}]
)
def test_a_process_that_is_not_provably_the_recorded_one_is_left_alone(
    above: Path, sleeper: subprocess.Popen[bytes], lie: dict[str, object]
) -> None:
    other = Other(above, "other", sleeper.pid)
    other.kill()
    record = other.path / "record"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    lied = [{**line, **{key: lie[key] for key in lie if key in line}} for line in lines]
    record.write_text("".join(json.dumps(line) + "\n" for line in lied))

    with RunDirectory.make(COMMAND, above=above):
        assert not other.path.exists()
        assert sleeper.poll() is None


@pytest.mark.parametrize("left", [b"", b"\x00\xff", b'{"name": "x"', b"[]\n{}\n", b"1\n" * 100_000])
def test_an_empty_record_kills_nothing_and_is_removed(above: Path, left: bytes) -> None:
    other = Other(above, "other")
    other.kill()
    (other.path / "record").write_bytes(left)

    with RunDirectory.make(COMMAND, above=above):
        assert not other.path.exists()


def test_a_directory_without_a_record_is_removed(above: Path) -> None:
    above.mkdir(mode=0o700)
    (above / "half.0123").mkdir()

    with RunDirectory.make(COMMAND, above=above) as made:
        assert {entry.name for entry in above.iterdir()} == {".lock", made.path.name}


def test_removing_follows_no_link(above: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("still here")
    above.mkdir(mode=0o700)
    (above / "left.0123").mkdir()
    (above / "left.0123" / "link").symlink_to(tmp_path)
    (above / "link.4567").symlink_to(tmp_path)

    with RunDirectory.make(COMMAND, above=above):
        assert kept.read_text() == "still here"


def test_a_record_that_is_a_pipe_does_not_block(above: Path) -> None:
    above.mkdir(mode=0o700)
    (above / "left.0123").mkdir()
    os.mkfifo(above / "left.0123" / "record")

    with RunDirectory.make(COMMAND, above=above):
        pass


def test_another_start_that_hangs_is_an_error(above: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "_LOCK_PATIENCE_S", 0.0)
    above.mkdir(mode=0o700)
    with (above / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(ConfigError, match="has not finished starting"):
            RunDirectory.make(COMMAND, above=above)


def test_twenty_concurrent_starts_do_not_conflict(above: Path) -> None:
    others = [Other(above, f"run-{number}") for number in range(20)]

    names = {run.name for run in run_directory.living(above)}
    for other in others:
        other.kill()

    assert names == {f"run-{number}" for number in range(20)}
    assert len({other.path for other in others}) == 20


def test_a_full_disk_is_an_error_that_says_where(
    above: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    above.mkdir(mode=0o700)
    monkeypatch.setattr(os, "write", full)

    with pytest.raises(ConfigError, match="no space left") as caught:
        RunDirectory.make(COMMAND, above=above)

    assert caught.value.fix is not None
    assert [entry.name for entry in above.iterdir()] == [".lock"]


def test_the_start_time_of_a_process_distinguishes_it_from_one_with_the_same_id(
    sleeper: subprocess.Popen[bytes],
) -> None:
    time.sleep(0.02)  # ticks are a hundredth of a second
    later = subprocess.Popen(["sleep", "600"])
    try:
        assert start_time_of(sleeper.pid) != start_time_of(later.pid)
    finally:
        later.kill()
        later.wait()
    assert start_time_of(later.pid) is None
