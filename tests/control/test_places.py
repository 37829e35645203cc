"""Where control sockets are: private directories, living proxies, and nothing left of dead ones."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.control import places
from claude_proxy.errors import ConfigError
from claude_proxy.system.runs import CONTROL


def names(base: Path) -> list[str]:
    return [one.name for one in places.living(base)]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_place_and_its_sockets_are_the_owners_alone(base: Path) -> None:
    before = os.umask(0)
    try:
        place = places.claim(base, "web")
        with place.listen(0):
            modes = [mode(base / CONTROL), mode(place.path), mode(place.path / "0.sock")]
    finally:
        os.umask(before)
    place.remove()

    assert modes == [0o700, 0o700, 0o600]


def test_a_living_place_is_found_with_its_facts_and_workers(base: Path) -> None:
    place = places.claim(base, "web")
    place.write(b'{"a": 1}\n')
    with place.listen(0), place.listen(3):
        (found,) = places.living(base)
    place.remove()

    assert (found.name, found.facts, found.workers) == ("web", b'{"a": 1}\n', (0, 3))


def test_two_proxies_of_a_name_have_places_of_their_own(base: Path) -> None:
    first, second = places.claim(base, "web"), places.claim(base, "web")

    found = names(base)
    first.remove()
    second.remove()

    assert found == ["web", "web-2"]


def test_nothing_is_left_of_a_proxy_that_has_ended(base: Path) -> None:
    place = places.claim(base, "web")
    place.listen(0).close()

    place.remove()

    assert [path.name for path in (base / CONTROL).iterdir()] == [places.LOCK]


KILLED = """
import os, signal, sys
from pathlib import Path
from claude_proxy.control import places
place = places.claim(Path(sys.argv[1]), "web")
place.write(b"{}")
place.listen(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_proxy_is_not_listed_and_its_name_is_free(base: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(base)], check=False)
    was_left = (base / CONTROL / "web" / "0.sock").exists()

    place = places.claim(base, "web")
    name = place.name
    place.remove()

    assert (was_left, name) == (True, "web")


def test_looking_removes_what_a_killed_proxy_left(base: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(base)], check=False)

    found = names(base)

    assert found == []
    assert not (base / CONTROL / "web").exists()


def test_a_place_lives_as_long_as_any_process_that_has_it(base: Path) -> None:
    place = places.claim(base, "web")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - ended without a report
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    place.owner = -1  # as a parent that is killed removes nothing

    place.remove()
    while_it_lives = names(base)
    os.close(writing)
    os.close(reading)
    os.waitpid(child, 0)

    assert (while_it_lives, names(base)) == (["web"], [])


def test_a_worker_that_replaces_another_takes_its_socket_over(base: Path) -> None:
    place = places.claim(base, "web")
    place.listen(0).close()

    with place.listen(0), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place.path / "0.sock"))
    place.remove()


def test_a_long_path_is_no_obstacle(base: Path) -> None:
    deep = base / ("d" * 100)
    deep.mkdir(mode=0o700)
    place = places.claim(deep, "web")

    with (
        place.listen(0),
        places.opened(place.path) as directory,
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(places.address_in(directory, place.path, places.socket_name(0)))
    place.remove()


def squat_link(path: Path) -> None:
    path.symlink_to("/tmp")


def squat_open(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def squat_file(path: Path) -> None:
    path.write_text("mine")


@pytest.mark.parametrize("squat", [squat_link, squat_open, squat_file])
@pytest.mark.parametrize("level", ["base", "control"])
def test_a_squatted_directory_is_not_used(base: Path, squat: object, level: str) -> None:
    runs = base / "runs"
    if level == "base":
        squat(runs)  # type: ignore[operator]
    else:
        runs.mkdir(mode=0o700)
        squat(runs / CONTROL)  # type: ignore[operator]

    with pytest.raises((ConfigError, OSError)):
        places.claim(runs, "web")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_not_used(base: Path) -> None:
    runs = base / "runs"
    runs.mkdir(mode=0o700)
    os.chown(runs, 12345, 12345)

    with pytest.raises(ConfigError, match="not owned by this user"):
        places.claim(runs, "web")
    with pytest.raises(ConfigError, match="not owned by this user"):
        places.living(runs)


def test_what_else_lies_there_is_removed_without_following_links(base: Path) -> None:
    places.claim(base, "web").remove()
    kept = base / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    (base / CONTROL / "link").symlink_to(kept)
    (base / CONTROL / "fifo").mkdir(mode=0o700)
    os.mkfifo(base / CONTROL / "fifo" / places.FACTS)

    found = names(base)

    assert found == []
    assert (kept / "file").read_text() == "kept"
    assert [path.name for path in (base / CONTROL).iterdir()] == [places.LOCK]


def test_nothing_lives_where_there_is_no_directory(base: Path) -> None:
    assert places.living(base / "none") == []


def test_a_claim_removes_what_dead_proxies_left(base: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(base)], check=False)

    places.claim(base, "other").remove()

    assert [path.name for path in (base / CONTROL).iterdir()] == [places.LOCK]
