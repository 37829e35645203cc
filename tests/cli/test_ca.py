"""Keeps the laws of `claude-proxy ca`: it shows no key, runs nothing, asks before it replaces."""

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from claude_proxy.cli.ca import STORES, stores_of
from claude_proxy.cli.main import main
from claude_proxy.trust.certificate_authority import CertificateAuthority, rotate

ALLOWLIST = """\
allow:
  - api.example.com
  - "*.good.example"
  - 10.0.0.0/8
"""


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    return tmp_path / "claude-proxy"


@pytest.fixture
def authority(confdir: Path) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(confdir)


def run(
    capsys: pytest.CaptureFixture[str], confdir: Path, *arguments: str | Path
) -> tuple[int, str, str]:
    command, *rest = map(str, arguments)
    code = main(["ca", command, "--confdir", str(confdir), *rest])
    out, err = capsys.readouterr()
    return code, out, err


def printed(capsys: pytest.CaptureFixture[str], confdir: Path, *arguments: str | Path) -> str:
    code, out, err = run(capsys, confdir, *arguments)
    assert (code, err) == (0, "")
    return out


@pytest.mark.parametrize("command", ["path", "show", "trust"])
def test_without_a_ca_it_says_how_to_make_one(
    capsys: pytest.CaptureFixture[str], confdir: Path, command: str
) -> None:
    code, out, err = run(capsys, confdir, command)

    assert (code, out) == (1, "")
    assert "claude-proxy ca bundle" in err
    assert not confdir.exists()


def test_path_prints_the_certificates_absolute_path(
    capsys: pytest.CaptureFixture[str],
    authority: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(authority.confdir.parent)

    out = printed(capsys, Path(authority.confdir.name), "path")

    assert out == f"{authority.certificate_path}\n"


def test_the_directory_is_the_default_one_unless_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    made = CertificateAuthority.load_or_create(tmp_path / ".config" / "claude-proxy")

    assert main(["ca", "path"]) == 0

    assert capsys.readouterr().out == f"{made.certificate_path}\n"


def test_show_tells_the_facts_and_no_secret(
    capsys: pytest.CaptureFixture[str], confdir: Path, authority: CertificateAuthority
) -> None:
    out = printed(capsys, confdir, "show")

    assert authority.fingerprint in out
    assert "EC P-256" in out
    assert "every host" in out
    assert f"0600  {confdir / 'mitmproxy-ca.pem'}" in out
    assert "PRIVATE" not in out


def test_show_tells_the_constraints(capsys: pytest.CaptureFixture[str], confdir: Path) -> None:
    rotate(confdir, ["x.com"])

    lines = printed(capsys, confdir, "show").splitlines()

    assert "valid for:    x.com" in lines
    assert "not for:      0.0.0.0/0; ::/0" in lines


def test_show_as_json_is_one_object(
    capsys: pytest.CaptureFixture[str], confdir: Path, authority: CertificateAuthority
) -> None:
    found = json.loads(printed(capsys, confdir, "show", "--json"))

    assert found["fingerprint"] == authority.fingerprint
    assert found["not_after"] == authority.not_after.isoformat()
    assert found["files"][str(confdir / "mitmproxy-ca.pem")] == "0600"
    assert found["permitted"] == found["excluded"] == []


def test_bundle_makes_the_ca_if_there_is_none(
    capsys: pytest.CaptureFixture[str], confdir: Path
) -> None:
    out = printed(capsys, confdir, "bundle")

    assert out == f"{confdir / 'ca-bundle.pem'}\n"
    authority = CertificateAuthority.load(confdir)
    assert (confdir / "ca-bundle.pem").read_bytes() == authority.bundle_pem()


def test_bundle_to_stdout_writes_no_file(
    capsys: pytest.CaptureFixture[str], confdir: Path, authority: CertificateAuthority
) -> None:
    out = printed(capsys, confdir, "bundle", "--stdout")

    assert out.encode() == authority.bundle_pem()
    assert not (confdir / "ca-bundle.pem").exists()


def test_rotate_says_what_is_to_be_done_next(
    capsys: pytest.CaptureFixture[str], confdir: Path, authority: CertificateAuthority
) -> None:
    out = printed(capsys, confdir, "rotate", "--yes")

    new = CertificateAuthority.load(confdir)
    assert new.fingerprint != authority.fingerprint
    assert new.fingerprint in out
    assert "takes the new CA within a second" in out
    assert "Restart claude-proxy" not in out
    assert str(next(confdir.glob("mitmproxy-ca-2*.pem"))) in out


def test_rotate_asks_nobody_where_there_is_no_ca(
    capsys: pytest.CaptureFixture[str], confdir: Path
) -> None:
    out = printed(capsys, confdir, "rotate")

    assert "old CA is kept" not in out
    assert CertificateAuthority.load(confdir).fingerprint in out


def test_rotate_does_nothing_where_nobody_can_be_asked(
    capsys: pytest.CaptureFixture[str], confdir: Path, authority: CertificateAuthority
) -> None:
    # pytest's standard input is no terminal.
    code, out, err = run(capsys, confdir, "rotate")

    assert (code, out) == (2, "")
    assert "--yes" in err
    assert CertificateAuthority.load(confdir).fingerprint == authority.fingerprint


ON_A_TERMINAL = """
import os, pty, sys
answer, *command = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execv(command[0], command)
os.write(terminal, answer.encode() + b"\\n")
try:
    while os.read(terminal, 4096):
        pass
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(("answer", "code", "replaced"), [("y", 0, [True]), ("n", 130, [False])])
def test_rotate_does_as_its_owner_answers(
    confdir: Path, authority: CertificateAuthority, answer: str, code: int, replaced: list[bool]
) -> None:
    command = [sys.executable, "-m", "claude_proxy", "ca", "rotate", "--confdir", str(confdir)]

    done = subprocess.run([sys.executable, "-c", ON_A_TERMINAL, answer, *command], check=False)

    assert done.returncode == code
    new = CertificateAuthority.load(confdir)
    assert [new.fingerprint != authority.fingerprint] == replaced


def test_rotate_constrain_binds_the_ca_to_the_allowlist(
    capsys: pytest.CaptureFixture[str], confdir: Path, tmp_path: Path
) -> None:
    allowlist = tmp_path / "list.yaml"
    allowlist.write_text(ALLOWLIST)

    out = printed(capsys, confdir, "rotate", "--constrain", "--allowlist", allowlist)

    facts = CertificateAuthority.load(confdir).describe()
    assert facts.permitted == ("api.example.com", "good.example", "10.0.0.0/8")
    assert "rotate again" in out


def test_rotate_constrain_reads_the_list_that_serve_would(
    capsys: pytest.CaptureFixture[str], confdir: Path, authority: CertificateAuthority
) -> None:
    (confdir / "allowlist.yaml").write_text(ALLOWLIST)

    printed(capsys, confdir, "rotate", "--constrain", "--yes")

    new = CertificateAuthority.load(confdir)
    assert new.certificate != authority.certificate
    assert new.outside(["api.example.com", "evil.example"]) == ("evil.example",)


@pytest.mark.parametrize("text", ["allow: [", "allow: []", "allow: ['*']"])
def test_rotate_constrain_changes_nothing_if_the_list_will_not_do(
    capsys: pytest.CaptureFixture[str], confdir: Path, authority: CertificateAuthority, text: str
) -> None:
    allowlist = confdir / "list.yaml"
    allowlist.write_text(text)

    code, _, err = run(capsys, confdir, "rotate", "--yes", "--constrain", "--allowlist", allowlist)

    assert code == 2
    assert "fix" in err
    assert CertificateAuthority.load(confdir).fingerprint == authority.fingerprint


# Trust


def test_trust_prints_commands_for_this_system_and_runs_none(
    capsys: pytest.CaptureFixture[str], confdir: Path, authority: CertificateAuthority
) -> None:
    before = {path.name: path.read_bytes() for path in confdir.iterdir()}

    out = printed(capsys, confdir, "trust")

    assert str(authority.certificate_path) in out
    assert "undo" in out
    assert {path.name: path.read_bytes() for path in confdir.iterdir()} == before


def test_every_printed_line_is_a_command_or_a_comment(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    confdir = tmp_path / "it's $HOME"
    authority = CertificateAuthority.load_or_create(confdir)

    lines = printed(capsys, confdir, "trust", "--all").splitlines()

    commands = [shlex.split(line) for line in lines if line and not line.startswith("#")]
    assert {words[0] for words in commands} == {"sudo", "security", "certutil", "keytool"}
    named = [words for words in commands if str(authority.certificate_path) in words]
    assert len(named) == len(STORES)
    assert not [line for line in lines if "{" in line]


@pytest.mark.parametrize(
    ("system", "distribution", "first"),
    [
        ("linux", {"debian"}, "Debian"),
        ("linux", {"linuxmint", "ubuntu", "debian"}, "Debian"),
        ("linux", {"alpine"}, "Debian"),
        ("linux", {"fedora"}, "Fedora"),
        ("linux", {"arch"}, "Fedora"),
        ("darwin", set(), "macOS"),
    ],
)
def test_each_system_has_its_own_store_and_those_of_every_system(
    system: str, distribution: set[str], first: str
) -> None:
    titles = [store.title for store in stores_of(system, frozenset(distribution))]

    assert titles[0].startswith(first)
    assert [title.split()[0] for title in titles[1:]] == ["Chromium", "Java:"]


def test_a_system_that_is_not_known_gets_all() -> None:
    assert stores_of("linux", frozenset({"plan9"})) == STORES


def test_a_system_that_does_not_say_what_it_is_gets_all(
    capsys: pytest.CaptureFixture[str],
    confdir: Path,
    authority: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> dict[str, str]:
        raise OSError("no os-release")

    monkeypatch.setattr(platform, "freedesktop_os_release", missing)

    out = printed(capsys, confdir, "trust")

    assert out == printed(capsys, confdir, "trust", "--all")
    assert authority.name in out


def test_the_certificate_is_what_path_points_to(
    capsys: pytest.CaptureFixture[str], confdir: Path, authority: CertificateAuthority
) -> None:
    path = Path(printed(capsys, confdir, "path").removesuffix("\n"))

    assert x509.load_pem_x509_certificate(path.read_bytes()) == authority.certificate
    assert os.access(path, os.R_OK)
