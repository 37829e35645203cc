"""Laws of `allow`: the file is written whole or not at all, and only if it loads."""

from pathlib import Path

import pytest

from claude_proxy.cli.main import main
from claude_proxy.config import policy_files


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the owner's list is, in a configuration of its own."""
    confdir = tmp_path / "conf"
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(confdir))
    return confdir / "allowlist.yaml"


def hosts_in(path: Path) -> list[str]:
    return list(policy_files.load(path).policy.hosts())


def test_the_first_host_begins_a_copy_of_the_shipped_list(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["allow", "docs.test"]) == 0

    assert {"api.anthropic.com", "docs.test"} <= set(hosts_in(own))
    assert own.stat().st_mode & 0o777 == 0o600
    assert f"Allowed in {own}: docs.test" in capsys.readouterr().out


def test_the_owners_list_keeps_its_mode_and_its_comments(own: Path) -> None:
    own.parent.mkdir(mode=0o700)
    own.write_text("# mine\nallow: [] # none yet\n")
    own.chmod(0o640)

    assert main(["allow", "a.test", "b.test:8443"]) == 0

    assert own.read_text().startswith("# mine\nallow:")
    assert hosts_in(own) == ["a.test", "b.test"]
    assert own.stat().st_mode & 0o777 == 0o640


def test_a_host_that_is_there_is_not_added_again(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["allow", "a.test"]) == main(["allow", "a.test"]) == 0

    assert "Nothing to add" in capsys.readouterr().out
    assert hosts_in(own).count("a.test") == 1


def test_one_host_that_is_wrong_leaves_the_file_as_it_was(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["allow", "a.test", "*.com"]) == 2

    assert not own.exists()
    assert "where: *.com" in capsys.readouterr().err


def test_a_list_with_an_included_file_can_be_added_to(own: Path) -> None:
    own.parent.mkdir(mode=0o700)
    own.with_name("more.yaml").write_text("allow: [m.test]\n")
    own.write_text("include: [more.yaml]\nallow:\n  - a.test\n")

    assert main(["allow", "b.test"]) == 0

    assert hosts_in(own) == ["a.test", "b.test", "m.test"]


def test_a_list_between_brackets_is_not_edited(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.parent.mkdir(mode=0o700)
    own.write_text("allow: [a.test]\n")

    assert main(["allow", "b.test"]) == 2
    assert "each entry on a line of its own" in capsys.readouterr().err


def test_a_denied_request_is_allowed_with_its_method_and_path_alone(own: Path) -> None:
    own.parent.mkdir(mode=0o700)
    own.write_text("allow:\n  - host: api.test\n    methods: [GET]\n")

    assert main(["allow", "api.test", "--method", "post", "--path", "/graphql"]) == 0

    policy = policy_files.load(own).policy
    assert policy.allows_url("https://api.test/graphql", "POST")
    assert not policy.allows_url("https://api.test/other", "POST")
    assert not policy.allows_url("https://api.test/graphql", "DELETE")


def test_a_pasted_url_allows_its_port_and_path_alone(own: Path) -> None:
    assert main(["allow", "https://api.test:8443/v1/items?page=2"]) == 0

    policy = policy_files.load(own).policy
    assert policy.allows_url("https://api.test:8443/v1/items")
    assert not policy.allows_url("https://api.test:8443/v1")
    assert not policy.allows_url("https://api.test/v1/items")


def test_a_dry_run_prints_the_change_and_writes_nothing(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.parent.mkdir(mode=0o700)
    own.write_text("allow:\n  - a.test\n")

    assert main(["allow", "--dry-run", "b.test"]) == 0

    assert own.read_text() == "allow:\n  - a.test\n"
    assert "\n+  - b.test\n" in capsys.readouterr().out


def test_a_dry_run_that_changes_nothing_says_so(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.parent.mkdir(mode=0o700)
    own.write_text("allow:\n  - a.test\n")

    assert main(["allow", "--dry-run", "a.test"]) == 0
    assert "Nothing to add" in capsys.readouterr().out
    assert main(["allow", "--dry-run", "--remove", "b.test"]) == 0
    assert "Nothing to remove" in capsys.readouterr().out


def test_a_command_that_fails_or_changes_nothing_creates_nothing(own: Path, tmp_path: Path) -> None:
    missing = tmp_path / "new" / "below" / "x.yaml"

    assert main(["allow", "--allowlist", str(missing), "a.test"]) == 2
    assert main(["allow", "--remove", "never.test"]) == 0

    assert not (tmp_path / "new").exists()
    assert not own.parent.exists()


def test_an_entry_is_removed_as_it_was_added(own: Path) -> None:
    own.parent.mkdir(mode=0o700)
    own.write_text("# mine\nallow:\n  - a.test\n")

    for options in ([], ["--method", "POST", "--path", "/x"], ["--address", "10.1.2.3"]):
        assert main(["allow", "b.test", *options]) == 0
        assert main(["allow", "--remove", "b.test", *options]) == 0

    assert own.read_text() == "# mine\nallow:\n  - a.test\n"


def test_the_policy_that_config_yaml_names_is_the_one_that_is_edited(own: Path) -> None:
    own.parent.mkdir(mode=0o700)
    own.with_name("config.yaml").write_text("policy: shell\n")

    assert main(["allow", "b.test"]) == 0

    assert not own.exists()
    assert "- b.test" in (own.parent / "policies" / "shell.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to allow"),
        (["--remove"], "nothing to remove"),
        (["--preset", "nmp"], "did you mean npm?"),
        (["a.test", "--method", "GTE"], "did you mean GET?"),
        (["a.test", "--path", "x"], "does not begin with a slash"),
        (["a.test", "--address", "x"], "neither an IP address nor a network"),
        (["10.1.2.3", "--address", "10.1.2.3"], "this host is an address itself"),
        (["--method", "GET", "--preset", "npm"], "name the host"),
        (["git@forge.test:o/r.git"], "https://forge.test/o/r.git"),
        (["https://me:hunter2@a.test/"], "write https://a.test/"),
    ],
)
def test_what_cannot_be_allowed_is_an_error_with_its_fix(
    own: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["allow", *arguments]) == 2

    printed = capsys.readouterr().err
    assert said in printed
    assert "hunter2" not in printed
    assert not own.exists()


def test_nothing_is_left_beside_the_list(own: Path) -> None:
    own.parent.mkdir(mode=0o700)
    (own.parent / ".allowlist.yaml.0123.unfinished").write_text("of a killed command")

    assert main(["allow", "a.test"]) == 0

    assert [path.name for path in own.parent.iterdir()] == ["allowlist.yaml"]


def test_a_policy_that_runs_here_use_instead_is_named(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "acme" / "below"
    project.mkdir(parents=True)
    own.parent.mkdir(mode=0o700)
    own.with_name("config.yaml").write_text(f"projects:\n  {tmp_path / 'acme'}: shell\n")
    monkeypatch.chdir(project)

    assert main(["allow", "a.test"]) == 0
    assert "runs in this directory use the policy shell" in capsys.readouterr().err

    assert main(["allow", "--policy", "shell", "a.test"]) == 0
    assert "runs in this directory" not in capsys.readouterr().err


def test_a_current_directory_that_is_gone_is_no_error(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert main(["allow", "a.test"]) == 0
    assert main(["check", "https://a.test/"]) == 0
    assert hosts_in(own).count("a.test") == 1
