"""The laws of the file of the allowlist: its owner's alone, read whole, told from other states."""

import grp
import os
import pwd
import stat
from pathlib import Path

import pytest

from claude_proxy import allowlist, policyfile
from claude_proxy.errors import ConfigError, ConfigErrors


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An allowlist in a directory of its own."""
    directory = tmp_path / "conf"
    directory.mkdir(mode=0o700)
    file = directory / "allowlist.yaml"
    file.write_text("allow: [example.com]\n")
    file.chmod(0o600)
    return file


def refusal_of(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        policyfile.load(path)
    return caught.value


def test_a_sound_file_is_read(file: Path) -> None:
    loaded = policyfile.load(file)

    assert list(loaded.policy.hosts()) == ["example.com"]
    assert loaded.fingerprint == policyfile.fingerprint(file)


def test_a_file_that_is_not_there_is_a_clear_error(file: Path) -> None:
    error = refusal_of(file.with_name("other.yaml"))

    assert error.what == "the allowlist cannot be read: no such file or directory"
    assert error.where == str(file.with_name("other.yaml"))
    assert error.mend == "name a readable allowlist file with --allowlist"


def test_a_directory_is_no_allowlist(file: Path) -> None:
    assert refusal_of(file.parent).what == "the allowlist cannot be read: is a directory"


def test_what_is_wrong_inside_is_told_with_its_place(file: Path) -> None:
    file.write_text("allow: ['*']\n")

    with pytest.raises(ConfigErrors) as caught:
        policyfile.load(file)

    assert caught.value.where is not None
    assert caught.value.where.startswith(f"{file}:1:")


def test_what_is_no_text_is_a_clear_error(file: Path) -> None:
    file.write_bytes(b"allow: [\xff]\n")

    assert refusal_of(file).exit_code == 2


def test_a_file_without_end_is_not_read_to_its_end(file: Path) -> None:
    file.write_bytes(b"#" * (allowlist.MAX_BYTES + 1))

    assert refusal_of(file).exit_code == 2


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666])
def test_a_file_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)

    error = refusal_of(file)

    assert error.what == "the file can be changed by other users, and with it the policy"
    assert error.where == f"{file} (mode {mode:04o})"
    assert error.mend == f"chmod go-w {file}"


@pytest.mark.parametrize("mode", [0o702, 0o777])
def test_a_directory_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.parent.chmod(mode)

    error = refusal_of(file)

    assert error.what == "the directory can be changed by other users, and with it the policy"
    assert error.where == f"{file.parent} (mode {mode:04o})"


def test_a_directory_where_each_may_change_only_what_is_theirs_is_fine(file: Path) -> None:
    file.parent.chmod(0o1777)

    assert policyfile.load(file).policy.rules_count == 1


@pytest.mark.parametrize("weak", ["the link's", "the file's"])
def test_a_link_is_as_strong_as_both_its_ends(file: Path, tmp_path: Path, weak: str) -> None:
    link = tmp_path / "links" / "allowlist.yaml"
    link.parent.mkdir(mode=0o700)
    link.symlink_to(file)
    before = policyfile.load(link).policy.rules_count
    (link if weak == "the link's" else file).parent.chmod(0o777)

    error = refusal_of(link)

    assert before == 1
    assert error.what == "the directory can be changed by other users, and with it the policy"


def test_a_directory_further_up_that_others_may_write_is_refused(
    file: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)

    error = refusal_of(file)

    assert error.where == f"{tmp_path} (mode 0777)"


def test_what_is_not_there_yet_is_judged_by_what_is_above_it(tmp_path: Path) -> None:
    missing = tmp_path / "a" / "b" / "c"
    policyfile.refuse_replaceable(missing, "the CA")
    tmp_path.chmod(0o777)

    with pytest.raises(ConfigError, match="other users, and with it the CA"):
        policyfile.refuse_replaceable(missing, "the CA")


def test_the_shipped_list_is_as_safe_as_the_code_that_reads_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policyfile, "_PACKAGE", file.parent)
    tmp_path.chmod(0o777)

    assert policyfile.load(file).policy.rules_count == 1


def state(mode: int, uid: int, gid: int = 0) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


def test_a_file_of_another_user_is_refused() -> None:
    other = os.geteuid() + 1

    with pytest.raises(ConfigError) as caught:
        policyfile.refuse_writable(Path("list.yaml"), state(stat.S_IFREG | 0o600, other))

    assert caught.value.what == "the file belongs to another user, who could change the policy"
    assert caught.value.mend == f"chown it: sudo chown {os.geteuid()} list.yaml"


@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_a_file_of_root_or_our_own_is_fine(uid: int) -> None:
    policyfile.refuse_writable(Path("list.yaml"), state(stat.S_IFREG | 0o644, uid))


# --- a group that is its owner's alone, as umask 002 wants it


class Accounts:
    """The users and groups of a machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.group = ("ann", 500)
        self.members: list[str] = []
        self.known = True
        monkeypatch.setattr(pwd, "getpwuid", self._user)
        monkeypatch.setattr(grp, "getgrgid", self._group)

    def _user(self, uid: int) -> pwd.struct_passwd:
        if not self.known:
            raise KeyError(uid)
        return pwd.struct_passwd(("ann", "x", uid, 500, "", "/", "/bin/sh"))

    def _group(self, _gid: int) -> grp.struct_group:
        return grp.struct_group((self.group[0], "x", self.group[1], self.members))


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> Accounts:
    return Accounts(monkeypatch)


def may_write(mode: int = 0o660) -> bool:
    found = state(stat.S_IFREG | mode, os.geteuid(), 500)
    try:
        policyfile.refuse_writable(Path("list.yaml"), found)
    except ConfigError:
        return True
    return False


def test_a_group_of_its_owner_alone_may_write(accounts: Accounts) -> None:
    accounts.members = ["ann"]

    assert not may_write()


def test_no_private_group_helps_where_everybody_may_write(accounts: Accounts) -> None:
    assert accounts.known
    assert may_write(0o662)


@pytest.mark.parametrize(
    ("group", "members"),
    [(("staff", 500), []), (("ann", 501), []), (("ann", 500), ["ann", "bob"])],
)
def test_a_group_with_others_in_it_may_not(
    accounts: Accounts, group: tuple[str, int], members: list[str]
) -> None:
    accounts.group, accounts.members = group, members

    assert may_write()


def test_a_group_that_nobody_knows_may_not(accounts: Accounts) -> None:
    accounts.known = False

    assert may_write()


# --- fingerprints


def test_a_changed_file_is_told_from_what_it_was(file: Path) -> None:
    before = policyfile.fingerprint(file)

    file.write_text("allow: []\n")

    assert policyfile.fingerprint(file) != before


def test_a_replaced_file_is_told_from_what_it_was(file: Path) -> None:
    before = policyfile.fingerprint(file)
    text, times = file.read_text(), file.stat()
    new = file.with_name("new")
    new.write_text(text)
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))

    new.replace(file)

    assert policyfile.fingerprint(file) != before


def test_a_file_that_is_gone_has_a_state_of_its_own(file: Path) -> None:
    before = policyfile.fingerprint(file)

    file.unlink()

    assert policyfile.fingerprint(file) == (0, 0, 0, 0) != before
