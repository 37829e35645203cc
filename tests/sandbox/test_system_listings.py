"""Only the directories of the system that contain a secret are listed."""

from pathlib import Path

from claude_proxy.sandbox.host_facts import path_info
from claude_proxy.sandbox.plan import system_mounts
from claude_proxy.sandbox.system_listings import listings_of
from tests.sandbox.boxes import Box


def test_without_a_secret_in_the_system_nothing_is_listed() -> None:
    wall = Path("/home/ann/.ssh")
    found = {path: path_info(path) for path in (*map(Path, system_mounts.DIRECTORIES), wall)}

    assert listings_of([wall], found) == {}


def test_the_directories_around_a_secret_are_listed() -> None:
    wall = Path("/usr/share/none/key")
    found = {path: path_info(path) for path in (*map(Path, system_mounts.DIRECTORIES), wall)}

    listings = listings_of([wall], found)

    assert set(listings) == {Path("/usr"), Path("/usr/share")}
    assert "share" in listings[Path("/usr")]


def test_a_secret_in_the_system_is_not_visible_and_programs_still_work(box: Box) -> None:
    secret = next(path for path in Path("/usr/share").iterdir() if path.is_dir())
    box.environ["GNUPGHOME"] = str(secret)

    done = box.sh(f"test -e {secret} || echo unseen; ls /usr/share | wc -l; ls /usr/bin/env")

    assert done.out.split()[0] == "unseen"
    assert int(done.out.split()[1]) > 1
    assert done.out.split()[2] == "/usr/bin/env"
