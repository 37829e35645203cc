"""The host replaces its files when it is asked, and sees what somebody else wrote."""

from pathlib import Path

from claude_proxy.doctor.attack.host_side import REQUEST, HostSide
from tests.support.waiting import until


def test_everything_is_replaced_when_it_is_asked_for(tmp_path: Path) -> None:
    host = HostSide(tmp_path)
    host.create()
    # Second names, so that no inode is used again.
    for number, path in enumerate(host.protected):
        (tmp_path / f"kept-{number}").hardlink_to(path)

    with host:
        (tmp_path / REQUEST).touch()
        until(lambda: not (tmp_path / REQUEST).exists(), "the replacement")

    for number, path in enumerate(host.protected):
        assert not (tmp_path / f"kept-{number}").samefile(path)
    assert host.changed() == ()


def test_what_somebody_else_wrote_is_seen(tmp_path: Path) -> None:
    host = HostSide(tmp_path)
    host.create()

    Path(host.protected[0]).write_text("evil", encoding="ascii")
    Path(host.hidden).unlink()

    assert host.changed() == (".envrc was changed", ".env was changed")


def test_a_process_in_the_way_is_no_error(tmp_path: Path) -> None:
    host = HostSide(tmp_path)
    host.create()
    (tmp_path / ".vscode" / "more").touch()

    host.replace_everything()

    assert (tmp_path / ".vscode").is_dir()
