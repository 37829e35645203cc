"""The laws of the file of the allowlist: its owner's alone, read whole, told from other states."""

import grp
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_proxy.config import policy_files
from claude_proxy.config.file_states import changed, fingerprint
from claude_proxy.config.loaded_policy import Loaded
from claude_proxy.config.settings import Learn, Settings
from claude_proxy.config.strict_yaml.file_text import MAX_BYTES
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
    assert loaded.states[file] == fingerprint(file)
    assert not loaded.is_stale


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
    file.write_bytes(b"#" * (MAX_BYTES + 1))

    assert refusal_of(file).exit_code == 2


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666])
def test_a_file_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)

    error = refusal_of(file)

    assert error.what == "the file can be changed by other users, who could change the policy"
    assert error.where == f"{file} (mode {mode:04o})"
    assert error.fix == f"chmod go-w {file}"


@pytest.mark.parametrize("mode", [0o702, 0o777])
def test_a_directory_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.parent.chmod(mode)

    error = refusal_of(file)

    assert error.what == "the directory can be changed by other users, who could change the policy"
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
    assert error.what == "the directory can be changed by other users, who could change the policy"


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

    with pytest.raises(ConfigError, match="other users, who could change the CA"):
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


# --- policies of groups files, and what narrows

MINE = "allow: [a.test]\n"


class Place:
    """Where a user keeps the files."""

    def __init__(self, directory: Path, file: Path) -> None:
        self.allowlist = file
        self.learned = directory / "learned.yaml"
        self.narrowing = directory / ".claude-proxy.yaml"
        self.confdir = file.parent
        self.own = file.parent / "policies" / "p.yaml"
        self.preset = file.parent / "presets" / "mine.yaml"
        for path in (self.own, self.preset):
            path.parent.mkdir(mode=0o700)

    def settings(self, **changes: object) -> Settings:
        return Settings(self.allowlist, self.confdir, self.confdir, **changes)  # type: ignore[arg-type]

    @staticmethod
    def write(path: Path, text: str) -> Path:
        path.write_text(text)
        path.chmod(0o600)
        return path


@pytest.fixture
def place(tmp_path: Path, file: Path) -> Place:
    return Place(tmp_path, file)


def hosts_of(loaded: Loaded) -> list[str]:
    return list(loaded.policy.hosts())


def refused(place: Place, **changes: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        policy_files.load_for(place.settings(**changes))
    return caught.value


def test_without_a_policy_the_allowlist_decides(place: Place) -> None:
    place.write(place.own, "[")  # not even looked at
    place.write(place.confdir / "groups.toml", "[")

    assert policy_files.load_for(place.settings()) == policy_files.load(place.allowlist)


def test_a_policy_of_the_owners_is_found_by_its_name(place: Place) -> None:
    place.write(place.own, MINE)

    assert hosts_of(policy_files.load_for(place.settings(policy="p"))) == ["a.test"]


def test_a_policy_of_the_owners_replaces_a_built_in_one(place: Place) -> None:
    place.write(place.own.with_name("claude.yaml"), MINE)

    assert hosts_of(policy_files.load_for(place.settings(policy="claude"))) == ["a.test"]


@pytest.mark.parametrize("name", ["clod", "../allowlist", "", "CLAUDE", "a/b", "claude.yaml"])
def test_an_unknown_policy_is_an_error(place: Place, name: str) -> None:
    error = refused(place, policy=name)

    assert error.what == f'there is no policy "{name}"'
    assert error.where == "--policy"


def test_an_unknown_policy_is_answered_with_the_nearest(place: Place) -> None:
    place.write(place.own.with_name("acme.yaml"), MINE)

    assert refused(place, policy="acmee").fix == "did you mean acme?"
    assert refused(place, policy="clod").fix == "did you mean claude?"
    assert refused(place, policy="opne").fix == "`claude-proxy policies` lists them"


def test_a_policy_that_others_may_write_is_refused(place: Place) -> None:
    place.write(place.own, MINE).chmod(0o666)

    assert "can be changed by other users" in refused(place, policy="p").what


def test_a_policy_that_cannot_be_looked_at_is_an_error(place: Place) -> None:
    place.own.symlink_to(place.own)

    assert "the policy cannot be read" in refused(place, policy="p").what


def test_a_groups_file_is_refused_with_the_way_to_convert_it(place: Place) -> None:
    groups = place.write(place.confdir / "groups.toml", "")

    error = refused(place, policy="claude")

    assert error.where == str(groups)
    assert f"claude-proxy import bw-claude {groups} --output {place.confdir}" in str(error.fix)


def test_a_policy_without_a_proxy_cannot_be_loaded_for_one(place: Place) -> None:
    assert "there is nothing to serve" in refused(place, policy="lockdown").what
    assert "nothing is filtered" in refused(place, policy="open").what


def test_an_allowlist_without_a_proxy_cannot_be_loaded_for_one(place: Place) -> None:
    place.write(place.allowlist, "description: none\nnetwork: none\n")

    error = refused(place)

    assert error.where == f"{place.allowlist}:2:10, network"


# --- presets of the owner's


def test_a_preset_of_the_owners_is_used_like_a_shipped_one(place: Place) -> None:
    place.write(place.preset, "allow: [m.test, {preset: nodejs}]\n")
    place.write(place.allowlist, "allow: [{preset: mine}]\n")

    assert hosts_of(policy_files.load_for(place.settings())) == ["m.test", "nodejs.org"]


def test_a_preset_that_others_may_write_is_refused(place: Place) -> None:
    place.write(place.preset, MINE).chmod(0o666)
    place.write(place.allowlist, "allow: [{preset: mine}]\n")

    error = refused(place)

    assert error.what.startswith(
        "the preset mine has a mistake: the file can be changed by other users"
    )
    assert error.where == f"{place.allowlist}:1:18, allow[0].preset"


def test_a_preset_of_the_owners_cannot_have_the_name_of_a_shipped_one(place: Place) -> None:
    place.write(place.preset.with_name("github.yaml"), MINE)
    place.write(place.allowlist, "allow: [{preset: github}]\n")

    error = refused(place)

    assert '"github" is the name of a shipped preset, and of one of yours' in error.what
    assert str(place.preset.with_name("github.yaml")) in error.what


def test_such_a_preset_is_found_where_a_shipped_one_includes_it(place: Place) -> None:
    place.write(place.preset.with_name("nodejs.yaml"), MINE)
    place.write(place.allowlist, "allow: [{preset: npm}]\n")

    assert "is the name of a shipped preset" in refused(place).what


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("deny: [x.test]", "a preset cannot have deny"),
        ("credentials: []", "a preset cannot have credentials"),
        ("network: none", "a preset cannot have network"),
        ("include: [b.yaml]", "a preset cannot have include"),
    ],
)
def test_a_preset_allows_and_does_nothing_else(place: Place, line: str, what: str) -> None:
    place.write(place.preset, f"{line}\n")
    place.write(place.allowlist, "allow: [{preset: mine}]\n")

    assert refused(place).what == f"the preset mine has a mistake: {what} (mine.yaml:1:1)"


# --- included files


def test_an_included_file_adds_its_entries_after_the_own_ones(place: Place) -> None:
    more = place.write(place.confdir / "more.yaml", "allow: [m.test]\ndeny: [d.test]\n")
    place.write(place.allowlist, "include: [more.yaml]\nallow: [a.test]\n")

    loaded = policy_files.load_for(place.settings())

    assert hosts_of(loaded) == ["a.test", "m.test"]
    (denial,) = loaded.policy.deny
    assert (denial.source.file, denial.source.line) == (str(more), 2)


def test_a_path_begins_at_the_file_that_includes_it(place: Place) -> None:
    place.write(place.own.with_name("b.yaml"), MINE)
    place.write(place.own, "include: [b.yaml]\n")
    place.write(place.allowlist, "include: [policies/p.yaml]\n")

    assert hosts_of(policy_files.load_for(place.settings())) == ["a.test"]


def test_a_file_that_is_included_twice_counts_once(place: Place) -> None:
    place.write(place.own, MINE)
    place.write(place.own.with_name("b.yaml"), "include: [p.yaml]\n")
    place.write(place.allowlist, "include: [policies/p.yaml, policies/b.yaml]\n")

    assert policy_files.load_for(place.settings()).policy.rules_count == 1


@pytest.mark.parametrize("name", ["allowlist.yaml", "./allowlist.yaml", "link.yaml"])
def test_a_file_that_includes_itself_is_refused(place: Place, name: str) -> None:
    (place.confdir / "link.yaml").symlink_to(place.allowlist)
    place.write(place.allowlist, f"include: [{name}]\n")

    error = refused(place)

    assert error.what.startswith(f"files include each other: {place.allowlist} -> ")
    assert error.where == f"{place.allowlist}:1:11, include[0]"


def test_files_that_include_each_other_are_refused(place: Place) -> None:
    place.write(place.own, "include: [../allowlist.yaml]\n")
    place.write(place.allowlist, "include: [policies/p.yaml]\n")

    error = refused(place)

    assert error.what.startswith(f"files include each other: {place.allowlist} -> {place.own} -> ")
    assert error.where == f"{place.own}:1:11, include[0]"


def test_an_included_file_that_others_may_write_is_refused(place: Place) -> None:
    place.write(place.own, MINE).chmod(0o666)
    place.write(place.allowlist, "include: [policies/p.yaml]\n")

    assert "can be changed by other users" in refused(place).what


def test_an_included_file_that_is_missing_is_told_at_its_line(place: Place) -> None:
    place.write(place.allowlist, "allow: [a.test]\ninclude:\n  - gone.yaml\n")

    error = refused(place)

    assert "the included file cannot be read: no such file or directory" in error.what
    assert error.where == f"{place.allowlist}:3:5, include[0]"


def test_mistakes_of_all_files_are_told_together_each_in_its_own(place: Place) -> None:
    place.write(place.own, "network: open\nallow: ['*']\n")
    place.write(place.allowlist, "alow: []\ninclude: [policies/p.yaml]\n")

    with pytest.raises(ConfigErrors) as caught:
        policy_files.load_for(place.settings())

    assert [error.where for error in caught.value.problems] == [
        f"{place.allowlist}:1:1",
        f"{place.own}:1:1",
        f"{place.own}:2:9, allow[0]",
    ]
    assert caught.value.problems[1].what == "an included file cannot have network"


def test_credentials_of_several_files_must_agree(place: Place) -> None:
    entry = "credentials: [{host: a.test, inject: bearer, from: {env: KEY}}]\nallow: [a.test]\n"
    place.write(place.own, entry)
    place.write(place.allowlist, f"{entry}include: [policies/p.yaml]\n")

    with pytest.raises(ConfigErrors) as caught:
        policy_files.load_for(place.settings())

    first = caught.value.problems[0]
    assert first.what == f"two credentials are named a.test, the first in {place.allowlist}:1"
    assert first.where == f"{place.own}:1:15, credentials[0]"


# --- what is watched


@pytest.mark.parametrize("policy", [None, "p"])
def test_every_file_is_watched(place: Place, policy: str | None) -> None:
    settings = place.settings(policy=policy, narrowing=place.narrowing)
    included = place.write(place.confdir / "more.yaml", "allow: [m.test]\n")
    for path in (place.own, place.allowlist):
        text = f"include: [{included}]\nallow: [{{preset: mine}}]\n"
        place.write(path, text)
    place.write(place.preset, MINE)
    place.write(place.narrowing, "deny: [x.test]\n")

    own = place.allowlist if policy is None else place.own
    for file in (own, included, place.preset, place.narrowing):
        loaded = policy_files.load_for(settings)
        assert not loaded.is_stale
        place.write(file, file.read_text() + "\n")

        assert loaded.is_stale


@pytest.mark.parametrize("name", ["policies/claude.yaml", "presets/claude.yaml"])
def test_a_file_that_comes_later_is_noticed(place: Place, name: str) -> None:
    loaded = policy_files.load_for(place.settings(policy="claude"))
    assert not loaded.is_stale

    place.write(place.confdir / name, MINE)

    assert loaded.is_stale


def test_a_load_that_fails_tells_what_it_looked_at(place: Place) -> None:
    missing = place.confdir / "gone.yaml"
    place.write(place.allowlist, "include: [gone.yaml]\n")
    seen: dict[Path, tuple[int, ...]] = {}

    with pytest.raises(ConfigError):
        policy_files.load_for(place.settings(), None, seen)

    assert set(seen) == {place.allowlist, missing}
    assert not changed(seen)
    place.write(missing, "")
    assert changed(seen)


def test_what_a_sandbox_must_not_write_is_this_policy_and_the_next_ones(place: Place) -> None:
    more = place.write(place.confdir / "more.yaml", "")
    place.write(place.own, "include: [../more.yaml]\n")

    found = policy_files.guarded(place.settings(policy="p"))

    expected = {place.own, more, place.allowlist, place.own.parent, place.preset.parent}
    expected |= {place.confdir / "config.yaml", place.confdir / "gateway.yaml"}
    assert expected <= {Path(os.path.normpath(path)) for path in found}


# --- which policy a run takes


def chosen(
    option: str | None = None,
    *,
    listed: bool = False,
    project: str = "/home/me/code/acme/sub",
    policy: str | None = "codex",
    configured: str | None = None,
    configures_allowlist: bool = False,
) -> policy_files.PolicyChoice:
    sources = policy_files.PolicySources(
        option=option,
        has_allowlist_option=listed,
        configured=configured,
        configures_allowlist=configures_allowlist,
        projects={Path("/home/me/code"): "work", Path("/home/me/code/acme"): "acme"},
    )
    return policy_files.choose(sources, Path(project), ("codex", policy))


def test_an_option_goes_before_all_else() -> None:
    assert chosen("mine", listed=True) == policy_files.PolicyChoice("mine", "--policy")
    assert chosen(listed=True) == policy_files.PolicyChoice(None, "--allowlist")


def test_a_project_goes_before_a_profile_and_the_nearest_binding_counts() -> None:
    assert chosen().policy == "acme"
    assert chosen(project="/home/me/code/acmeish").policy == "work"
    assert chosen(project="/home/me/code").origin == "projects, /home/me/code"


def test_config_yaml_goes_before_a_profile_and_after_a_project() -> None:
    assert chosen(configured="usual").policy == "acme"
    assert chosen(project="/srv", configured="usual").policy == "usual"
    assert chosen(project="/srv", configures_allowlist=True) == policy_files.PolicyChoice(
        None, "config.yaml"
    )


def test_a_profile_goes_before_the_default_allowlist() -> None:
    by_profile = policy_files.PolicyChoice("codex", "profile codex", by_profile=True)
    assert chosen(project="/srv") == by_profile
    assert chosen(project="/srv", policy=None) == policy_files.PolicyChoice(
        None, "the default allowlist"
    )


# --- what narrows


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

    with pytest.raises(ConfigError, match="the project's file cannot be read") as caught:
        policy_files.load_for(place.settings(narrowing=place.narrowing))

    assert caught.value.where == str(place.narrowing)


def test_a_narrowing_starts_with_the_text_that_its_owner_has_agreed_to(place: Place) -> None:
    place.write(place.narrowing, "deny: []\n")
    settings = place.settings(narrowing=place.narrowing, narrowing_text="deny: [example.com]\n")

    with pytest.raises(ConfigError, match="has changed while the run started"):
        policy_files.load_for(settings)

    place.write(place.narrowing, "deny: [example.com]\n")
    last = policy_files.load_for(settings)
    place.write(place.narrowing, "deny: [a.test]\n")
    assert denied_of(policy_files.load_for(settings, last)) == ["example.com", "a.test"]


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


def denied_of(loaded: Loaded) -> list[str]:
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
    settings = place.settings(learn=(learn, place.learned), narrowing=place.narrowing)

    policy = policy_files.load_for(settings).policy

    everything = learn is Learn.EVERYTHING
    assert policy.allows_by_default is everything
    assert policy.decide_connect(Authority("any.test", 8443)).allowed is everything
    for host in ("a.evil.test", "narrowed.test", "127.0.0.1", "169.254.169.254"):
        assert not policy.decide_connect(Authority(host, 443)).allowed


def test_a_start_reads_a_policy_once(place: Place) -> None:
    place.write(place.allowlist, "allow:\n  - a.example\n")

    with policy_files.readings_kept():
        first = policy_files.policy_file_for(place.settings())
        again = policy_files.policy_file_for(place.settings())

    assert again is first


def test_a_start_reads_a_policy_again_that_has_changed(place: Place) -> None:
    place.write(place.allowlist, "allow:\n  - a.example\n")

    with policy_files.readings_kept():
        before = policy_files.load_for(place.settings())
        place.write(place.allowlist, "allow:\n  - another.example\n")
        after = policy_files.load_for(place.settings())

    assert (hosts_of(before), hosts_of(after)) == (["a.example"], ["another.example"])


def test_a_start_knows_the_files_of_a_policy_that_it_kept(place: Place) -> None:
    place.write(place.allowlist, "allow:\n  - a.example\n")

    with policy_files.readings_kept():
        first = policy_files.load_for(place.settings())
        again = policy_files.load_for(place.settings())

    assert (again.states, again.digests, again.blank) == (first.states, first.digests, first.blank)


def test_a_policy_that_cannot_be_read_is_an_error_each_time(place: Place) -> None:
    place.write(place.allowlist, "allow: 1\n")

    with policy_files.readings_kept():
        for _ in range(2):
            with pytest.raises(ConfigErrors):
                policy_files.policy_file_for(place.settings())


def test_after_a_start_a_policy_is_read_each_time(place: Place) -> None:
    place.write(place.allowlist, "allow:\n  - a.example\n")
    first = policy_files.policy_file_for(place.settings())

    assert policy_files.policy_file_for(place.settings()) is not first
