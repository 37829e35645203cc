"""The laws of the file of the allowlist: its owner's alone, read whole, told from other states."""

import grp
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_proxy.config import policy_files
from claude_proxy.config.groups import reader as groups_reader
from claude_proxy.config.settings import Learn, Settings
from claude_proxy.config.strict_yaml import nodes
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.reason import Reason
from claude_proxy.system import file_permissions
from claude_proxy.wire.authority import Authority


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
        policy_files.load(path)
    return caught.value


def test_a_sound_file_is_read(file: Path) -> None:
    loaded = policy_files.load(file)

    assert list(loaded.policy.hosts()) == ["example.com"]
    assert loaded.fingerprint == policy_files.fingerprint(file)


def test_a_file_that_is_not_there_is_a_clear_error(file: Path) -> None:
    error = refusal_of(file.with_name("other.yaml"))

    assert error.what == "the allowlist cannot be read: no such file or directory"
    assert error.where == str(file.with_name("other.yaml"))
    assert error.fix == "name a readable allowlist file with --allowlist"


def test_a_directory_is_no_allowlist(file: Path) -> None:
    assert refusal_of(file.parent).what == "the allowlist cannot be read: is a directory"


def test_what_is_wrong_inside_is_told_with_its_place(file: Path) -> None:
    file.write_text("allow: ['*']\n")

    with pytest.raises(ConfigErrors) as caught:
        policy_files.load(file)

    assert caught.value.where is not None
    assert caught.value.where.startswith(f"{file}:1:")


def test_what_is_no_text_is_a_clear_error(file: Path) -> None:
    file.write_bytes(b"allow: [\xff]\n")

    assert refusal_of(file).exit_code == 2


def test_a_file_without_end_is_not_read_to_its_end(file: Path) -> None:
    file.write_bytes(b"#" * (nodes.MAX_BYTES + 1))

    assert refusal_of(file).exit_code == 2


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666])
def test_a_file_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)

    error = refusal_of(file)

    assert error.what == "the file can be changed by other users, and with it the policy"
    assert error.where == f"{file} (mode {mode:04o})"
    assert error.fix == f"chmod go-w {file}"


@pytest.mark.parametrize("mode", [0o702, 0o777])
def test_a_directory_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.parent.chmod(mode)

    error = refusal_of(file)

    assert error.what == "the directory can be changed by other users, and with it the policy"
    assert error.where == f"{file.parent} (mode {mode:04o})"


def test_a_directory_where_each_may_change_only_what_is_theirs_is_fine(file: Path) -> None:
    file.parent.chmod(0o1777)

    assert policy_files.load(file).policy.rules_count == 1


@pytest.mark.parametrize("weak", ["the link's", "the file's"])
def test_a_link_is_as_strong_as_both_its_ends(file: Path, tmp_path: Path, weak: str) -> None:
    link = tmp_path / "links" / "allowlist.yaml"
    link.parent.mkdir(mode=0o700)
    link.symlink_to(file)
    before = policy_files.load(link).policy.rules_count
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
    file_permissions.refuse_replaceable(missing, "the CA")
    tmp_path.chmod(0o777)

    with pytest.raises(ConfigError, match="other users, and with it the CA"):
        file_permissions.refuse_replaceable(missing, "the CA")


def test_the_shipped_list_is_as_safe_as_the_code_that_reads_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_permissions, "_PACKAGE", file.parent)
    tmp_path.chmod(0o777)

    assert policy_files.load(file).policy.rules_count == 1


def state(mode: int, uid: int, gid: int = 0) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


def test_a_file_of_another_user_is_refused() -> None:
    other = os.geteuid() + 1

    with pytest.raises(ConfigError) as caught:
        file_permissions.refuse_writable(Path("list.yaml"), state(stat.S_IFREG | 0o600, other))

    assert caught.value.what == "the file belongs to another user, who could change the policy"
    assert caught.value.fix == f"chown it: sudo chown {os.geteuid()} list.yaml"


@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_a_file_of_root_or_our_own_is_fine(uid: int) -> None:
    file_permissions.refuse_writable(Path("list.yaml"), state(stat.S_IFREG | 0o644, uid))


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
        file_permissions.refuse_writable(Path("list.yaml"), found)
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
    before = policy_files.fingerprint(file)

    file.write_text("allow: []\n")

    assert policy_files.fingerprint(file) != before


def test_a_replaced_file_is_told_from_what_it_was(file: Path) -> None:
    before = policy_files.fingerprint(file)
    text, times = file.read_text(), file.stat()
    new = file.with_name("new")
    new.write_text(text)
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))

    new.replace(file)

    assert policy_files.fingerprint(file) != before


def test_a_file_that_is_gone_has_a_state_of_its_own(file: Path) -> None:
    before = policy_files.fingerprint(file)

    file.unlink()

    assert policy_files.fingerprint(file) == (0, 0, 0, 0) != before


# --- policies of groups files, and what narrows

GROUPS = (
    '[network.groups.a]\nhosts = ["a.test"]\n[policy.policies.p.network]\nallow_groups = ["a"]\n'
)


class Place:
    """Where a user keeps the files."""

    def __init__(self, directory: Path, file: Path) -> None:
        self.allowlist = file
        self.groups = directory / "given.toml"
        self.narrowing = directory / ".claude-proxy.yaml"
        self._directory = file.parent
        self.own = file.parent / "groups.toml"

    def settings(self, **changes: object) -> Settings:
        return Settings(self.allowlist, self._directory, self._directory, **changes)  # type: ignore[arg-type]

    @staticmethod
    def write(path: Path, text: str) -> Path:
        path.write_text(text)
        path.chmod(0o600)
        return path


@pytest.fixture
def place(tmp_path: Path, file: Path) -> Place:
    return Place(tmp_path, file)


def hosts_of(loaded: policy_files.Loaded) -> list[str]:
    return list(loaded.policy.hosts())


def test_without_a_policy_the_allowlist_decides(place: Place) -> None:
    place.write(place.own, "[")  # is not even looked at

    assert policy_files.load_for(place.settings()) == policy_files.load(place.allowlist)


def test_a_policy_is_looked_for_in_the_users_groups_and_in_those_that_are_named(
    place: Place,
) -> None:
    place.write(place.own, GROUPS)
    assert hosts_of(policy_files.load_for(place.settings(policy="p"))) == ["a.test"]
    place.write(place.groups, '[network.groups.a]\nhosts = ["b.test"]\n')

    loaded = policy_files.load_for(place.settings(policy="p", groups=place.groups))

    assert hosts_of(loaded) == ["b.test"]


def test_the_users_groups_need_not_be_there_and_those_that_are_named_must(place: Place) -> None:
    assert policy_files.load_for(place.settings(policy="claude")).policy.rules_count

    with pytest.raises(ConfigError, match="the groups file cannot be read: no such file") as caught:
        policy_files.load_for(place.settings(policy="claude", groups=place.groups))

    assert caught.value.fix == "name a readable groups file with --groups"


@pytest.mark.parametrize("which", ["own", "groups"])
def test_a_groups_file_that_others_may_write_is_refused(place: Place, which: str) -> None:
    place.write(place.own, GROUPS)
    place.write(place.groups, "")
    getattr(place, which).chmod(0o666)

    with pytest.raises(ConfigError, match="can be changed by other users"):
        policy_files.load_for(place.settings(policy="p", groups=place.groups))


def test_a_groups_file_is_bounded(place: Place) -> None:
    place.write(place.groups, "#" * (groups_reader.MAX_BYTES + 1))

    with pytest.raises(ConfigError, match="larger than 4096 KiB"):
        policy_files.load_for(place.settings(policy="p", groups=place.groups))


def test_users_groups_that_cannot_be_looked_at_are_an_error(place: Place) -> None:
    place.own.symlink_to(place.own)

    with pytest.raises(ConfigError, match="the groups file cannot be read"):
        policy_files.load_for(place.settings(policy="claude"))


def test_a_directory_that_cannot_be_looked_into_is_not_taken_for_one_without_groups(
    place: Place, tmp_path: Path
) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)

    with pytest.raises(ConfigError, match="the groups file cannot be read"):
        policy_files.load_for(Settings(place.allowlist, circle, circle, policy="claude"))


def test_a_policy_without_a_proxy_cannot_be_loaded_for_one(place: Place) -> None:
    with pytest.raises(ConfigError, match="there is nothing to serve"):
        policy_files.load_for(place.settings(policy="lockdown"))


@pytest.mark.parametrize("policy", [None, "p"])
def test_every_file_is_watched(place: Place, policy: str | None) -> None:
    settings = place.settings(policy=policy, groups=place.groups, narrowing=place.narrowing)
    files = [place.allowlist] if policy is None else [place.own, place.groups]
    place.write(place.own, GROUPS)
    place.write(place.groups, "")
    place.write(place.narrowing, "deny: [x.test]\n")

    for file in (*files, place.narrowing):
        loaded = policy_files.load_for(settings)
        assert loaded.fingerprint == policy_files.fingerprint_for(settings)
        place.write(file, file.read_text() + "\n")

        assert loaded.fingerprint != policy_files.fingerprint_for(settings)


def test_users_groups_that_come_later_are_noticed(place: Place) -> None:
    settings = place.settings(policy="claude")
    loaded = policy_files.load_for(settings)
    assert loaded.fingerprint == policy_files.fingerprint_for(settings)

    place.write(place.own, GROUPS)

    assert loaded.fingerprint != policy_files.fingerprint_for(settings)


@pytest.mark.parametrize("policy", [None, "allow"])
def test_a_narrowing_holds_on_top_of_whatever_decides(place: Place, policy: str | None) -> None:
    place.write(place.narrowing, "deny: [example.com]\nhide: [secrets]\n")

    loaded = policy_files.load_for(place.settings(policy=policy, narrowing=place.narrowing))

    decision = loaded.policy.decide_connect(Authority("example.com", 443))
    assert decision.reason is Reason.DENY_RULE


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("allow: [x.test]\n", 'unknown key "allow"'),
        ("deny: ['*']\n", "matches every host"),
        ("deny: [\n", "not YAML"),
        ("#" * (256 * 1024 + 1), "larger than 256 KiB"),
    ],
    ids=["allows", "a bad rule", "no YAML", "too large"],
)
def test_a_bad_narrowing_stops_the_start(place: Place, text: str, what: str) -> None:
    place.write(place.narrowing, text)

    with pytest.raises(ConfigError, match=what):
        policy_files.load_for(place.settings(narrowing=place.narrowing))


@pytest.mark.parametrize("kind", ["missing", "link", "pipe", "directory"])
def test_a_narrowing_is_a_plain_file_and_is_never_waited_for(place: Place, kind: str) -> None:
    make: dict[str, Callable[[Path], object]] = {
        "missing": lambda _: None,
        "link": lambda path: path.symlink_to(place.allowlist),
        "pipe": os.mkfifo,
        "directory": Path.mkdir,
    }
    make[kind](place.narrowing)

    with pytest.raises(ConfigError, match="the file that narrows cannot be read") as caught:
        policy_files.load_for(place.settings(narrowing=place.narrowing))

    assert caught.value.where == str(place.narrowing)


def test_a_narrowing_that_went_bad_keeps_its_rules_and_no_change_of_the_owners_from_applying(
    place: Place,
) -> None:
    settings = place.settings(narrowing=place.narrowing)
    place.write(place.narrowing, "deny: [example.com]\n")
    last = policy_files.load_for(settings)
    place.write(place.narrowing, "allow: ['*']\n")
    place.write(place.allowlist, "allow: [example.com, other.test]\n")

    loaded = policy_files.load_for(settings, last)

    assert hosts_of(loaded) == ["example.com", "other.test"]
    assert not loaded.policy.decide_connect(Authority("example.com", 443)).allowed
    assert loaded.complaint is not None
    assert 'unknown key "allow"' in loaded.complaint.what


def denied_of(loaded: policy_files.Loaded) -> list[str]:
    return [rule.name for rule in loaded.policy.deny]


def test_what_narrows_can_be_added_to_and_not_taken_away_while_it_is_in_force(
    place: Place,
) -> None:
    settings = place.settings(narrowing=place.narrowing)
    place.write(place.narrowing, "deny: [a.test]\n")
    last = policy_files.load_for(settings)

    for text in ("\n\ndeny: [b.test, a.test]\n", "deny: []\n", "", "# deny: [a.test]\n"):
        place.write(place.narrowing, text)
        last = policy_files.load_for(settings, last)

    assert denied_of(last) == ["a.test", "b.test"]
    assert denied_of(policy_files.load_for(settings)) == []


def test_what_narrows_does_not_grow_without_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_files, "_NARROWING_RULES", 2)
    settings = place.settings(narrowing=place.narrowing)
    place.write(place.narrowing, "deny: [a.test, b.test, c.test]\n")
    last = policy_files.load_for(settings)
    place.write(place.narrowing, "deny: [d.test]\n")

    loaded = policy_files.load_for(settings, last)

    assert denied_of(loaded) == ["a.test", "b.test", "c.test"]
    assert loaded.complaint is not None


@pytest.mark.parametrize("learn", Learn)
def test_learning_lets_through_what_no_rule_denies_only_where_everything_is_learned(
    place: Place, learn: Learn
) -> None:
    place.write(place.allowlist, "allow: [example.com]\ndeny: ['*.evil.test']\n")
    place.write(place.narrowing, "deny: [narrowed.test]\n")
    settings = place.settings(learn=(learn, place.groups), narrowing=place.narrowing)

    policy = policy_files.load_for(settings).policy

    everything = learn is Learn.EVERYTHING
    assert policy.allows_by_default is everything
    assert policy.decide_connect(Authority("any.test", 8443)).allowed is everything
    for host in ("a.evil.test", "narrowed.test", "127.0.0.1", "169.254.169.254"):
        assert not policy.decide_connect(Authority(host, 443)).allowed
