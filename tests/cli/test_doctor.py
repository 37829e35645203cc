"""`claude-proxy doctor` shows what it found, and its exit code is the worst of it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from claude_proxy.cli import doctor
from claude_proxy.cli import main as cli
from claude_proxy.cli.main import main
from claude_proxy.doctor import checks, client_trust
from claude_proxy.doctor.attack import run as attack_module
from claude_proxy.doctor.attack.canaries import SECRET_VARIABLE
from claude_proxy.doctor.attack.catalogue import AttackGroup, AttackResult, Outcome
from claude_proxy.doctor.attack.run import AttackTarget
from claude_proxy.doctor.client_trust import ClientResult, Progress
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, Level

FOUND = [
    Finding("allowlist", Level.OK, "9 to allow"),
    Finding("CA", Level.WARNING, "it ends\nsoon", "claude-proxy ca rotate\nand so on"),
]
ROWS = [
    AttackResult("honest", "an allowed site", AttackGroup.ALLOWED, Outcome.WORKS, 1),
    AttackResult("a", "one way", AttackGroup.NETWORK, Outcome.STOPPED, 3, ("seccomp",), ("EPERM",)),
    AttackResult("b", "another way", AttackGroup.NETWORK, Outcome.STOPPED, 1, ("seccomp",)),
    AttackResult("c", "listeners", AttackGroup.CANARIES, Outcome.STOPPED, 0, saw=("saw nothing",)),
]
OUT = AttackResult(
    "d", "a way out", AttackGroup.FILES, Outcome.THROUGH, 2, through=("/etc/passwd: \x1b[31m",)
)
UNKNOWN = AttackResult("e", "a way", AttackGroup.PROXY, Outcome.ERROR, 0, saw=("KeyError: x",))


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["doctor", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[Subject]:
    """Have the examination find what it is told to, and note what it is asked about."""
    asked: list[Subject] = []

    def examine(subject: Subject) -> list[Finding]:
        asked.append(subject)
        return FOUND

    monkeypatch.setattr(doctor, "examine", examine)
    return asked


def test_each_finding_is_a_line_and_its_fix_stands_below(
    capsys: pytest.CaptureFixture[str], examined: list[Subject]
) -> None:
    code, out, _ = run(capsys)

    assert examined
    assert code == 1
    assert out.splitlines() == [
        "ok       allowlist  9 to allow",
        "warning  CA         it ends\\x0asoon",
        "                    fix: claude-proxy ca rotate",
        "                          and so on",
    ]


def test_as_json_it_is_one_object(
    capsys: pytest.CaptureFixture[str], examined: list[Subject]
) -> None:
    code, out, _ = run(capsys, "--json")

    told = json.loads(out)
    assert examined
    assert (code, told["exit"]) == (1, 1)
    assert told["findings"][1] == {
        "name": "CA",
        "level": "warning",
        "what": "it ends\nsoon",
        "fix": "claude-proxy ca rotate\nand so on",
    }


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "wants_colour", lambda _: True)

    found = "\n".join(doctor.finding_lines(FOUND))
    attacked = "\n".join(doctor.attack_lines([*ROWS, OUT]))
    clients = "\n".join(doctor.trust_lines(LOOKS))

    assert "\x1b[32mok" in found
    assert "\x1b[33mwarning" in found
    assert "\x1b[31m\x1b[1mTHROUGH" in attacked
    assert "\x1b[31mnode" in clients


def test_it_looks_where_the_proxy_would(
    capsys: pytest.CaptureFixture[str], examined: list[Subject], tmp_path: Path
) -> None:
    run(capsys, "--confdir", tmp_path / "c", "--statedir", "state", "--listen", "127.0.0.1:1234")

    [subject] = examined
    assert subject.settings.confdir == tmp_path / "c"
    assert subject.settings.statedir.is_absolute()
    assert [str(place) for place in subject.settings.listen] == ["127.0.0.1:1234"]


def test_all_checks_are_made_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--port", "0", "--json")

    told = json.loads(out)
    assert code == told["exit"]
    assert len(told["findings"]) >= len(checks.CHECKS)


LOOKS = [
    ClientResult("curl", True, True, True),
    ClientResult("node", True, False, True, "ENOTFOUND", "use Node 24", transparent=True),
    ClientResult("deno", False),
    ClientResult("java", True, None, None, "", "see why `java` fails"),
]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def look(
        _: Path, environ: Mapping[str, str], *, address: str, progress: Progress
    ) -> list[ClientResult]:
        assert environ is os.environ
        progress("curl", 1, 2)
        asked.append(address)
        return LOOKS

    monkeypatch.setattr(client_trust, "try_clients", look)
    return asked


def test_each_client_is_a_line_and_what_fixes_it_stands_below(
    capsys: pytest.CaptureFixture[str], looked: list[str]
) -> None:
    code, out, err = run(capsys, "--trust")

    assert (code, looked) == (1, ["127.0.0.1:9051"])
    assert err == "trying curl (1 of 2)\n"
    assert out.splitlines() == [
        "      uses the proxy  trusts the CA",
        "curl  yes             yes",
        "node  NO              yes",
        "      said: ENOTFOUND",
        "      fix: use Node 24",
        "      inside: `claude-proxy run --transparent on` leads it to the proxy",
        "deno  not installed",
        "java  ?               ?",
        "      fix: see why `java` fails",
    ]


def test_the_clients_as_json(capsys: pytest.CaptureFixture[str], looked: list[str]) -> None:
    code, out, _ = run(capsys, "--trust", "--json", "--listen", "unix:/tmp/s", "--port", "1")

    told = json.loads(out)
    assert (code, told["exit"], looked) == (1, 1, ["127.0.0.1:1"])
    assert told["clients"][1]["uses_proxy"] is False


def test_without_a_ca_there_are_no_clients_to_look_at(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = run(capsys, "--trust", "--confdir", tmp_path)

    assert (code, out) == (2, "")
    assert "fix:   create it: claude-proxy ca bundle" in err


@pytest.fixture
def aims(monkeypatch: pytest.MonkeyPatch) -> list[AttackTarget]:
    asked: list[AttackTarget] = []

    def attack(aim: AttackTarget) -> list[AttackResult]:
        assert os.environ[SECRET_VARIABLE] == aim.token
        asked.append(aim)
        return [*ROWS, OUT]

    monkeypatch.setattr(attack_module, "attack", attack)
    return asked


def test_each_attack_is_a_line_and_what_got_out_stands_below(
    capsys: pytest.CaptureFixture[str], aims: list[AttackTarget]
) -> None:
    code, out, _ = run(capsys, "--attack")

    assert aims
    assert code == 1
    assert SECRET_VARIABLE not in os.environ
    assert out.splitlines() == [
        "what is allowed:",
        "  works    an allowed site",
        "the network:",
        "  stopped  one way           3 tries  by seccomp (EPERM)",
        "  stopped  another way                by seccomp",
        "seen outside:",
        "  stopped  listeners                  saw nothing",
        "files and devices:",
        "  THROUGH  a way out         2 tries",
        "    got through: /etc/passwd: \\x1b[31m",
        "",
        "2 of 3 attacks stopped, 6 tries in all.",
        "NOT SAFE: 1 got through. Do not rely on this sandbox.",
    ]


def test_what_could_not_be_tried_is_said_aloud() -> None:
    lines = list(doctor.attack_lines([*ROWS, UNKNOWN]))

    assert lines[-3:] == [
        "",
        "2 of 3 attacks stopped, 4 tries in all.",
        "UNKNOWN: 1 could not be tried; nothing is proved about them.",
    ]


def test_the_sandbox_is_that_of_the_same_options_of_run(
    capsys: pytest.CaptureFixture[str], aims: list[AttackTarget], tmp_path: Path
) -> None:
    _, out, _ = run(
        capsys,
        *("--attack", "--json", "--dir", tmp_path, "--allow-ro", tmp_path / "a"),
        *("--pass-env", "A", "--profile", "claude", "--share-agent-home", "--no-network"),
        *("--without-seccomp", "--port", "4711", "--confdir", tmp_path / "c"),
    )

    [aim] = aims
    spec, settings = aim.run_spec.sandbox, aim.run_spec.settings
    assert (spec.project, spec.allow_ro) == (tmp_path, (tmp_path / "a",))
    assert (spec.pass_env, spec.profile.name, spec.share_agent_home) == (("A",), "claude", True)
    assert (spec.has_proxy, spec.seccomp, aim.own_project) == (False, False, False)
    assert [str(place) for place in settings.listen] == ["127.0.0.1:4711"]
    assert json.loads(out)["exit"] == 1


def test_without_a_directory_it_uses_an_empty_one(
    capsys: pytest.CaptureFixture[str], aims: list[AttackTarget]
) -> None:
    run(capsys, "--attack")

    assert aims[0].own_project
    assert aims[0].run_spec.sandbox.profile.name == "shell"


def test_the_help_shows_what_matters_here_and_its_exit_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, "--help")

    assert code == 0
    assert "--upstream-ca" not in out
    assert "Exit codes: 0 no problems, 1 warnings, 2 errors." in out
    assert cli.COMMANDS["doctor"] in out


def test_looking_makes_no_ca(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    run(capsys, "--port", "0")

    assert list(tmp_path.iterdir()) == []


def test_a_list_that_is_broken_is_an_error_and_nothing_is_tried(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "broken.yaml").write_text('allow: ["*"]\n')

    code, out, err = run(capsys, "--attack", "--allowlist", tmp_path / "broken.yaml")

    assert (code, out) == (2, "")
    assert "fix:" in err
