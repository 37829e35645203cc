"""The real command: on this machine, with the clients that it has, and in its real sandbox."""

import json
import os
import pwd
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import FindProgram

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ("curl", "git", "node", "npm", "pip")

# For a user who may not enter the directory `$1`: what lies there and is named after it stays.
_REACHABLE = """\
set -e
hidden=$1; shift
mount -t tmpfs -o mode=755 none /mnt
for path in $1; do mkdir -p "/mnt$path"; mount --bind "$path" "/mnt$path"; done
mount -t tmpfs -o mode=755 none "$hidden"
for path in $1; do mkdir -p "$path"; mount --bind "/mnt$path" "$path"; done
shift; exec "$@"
"""
_NOBODY = 65534
# What one engine lacks while the other works, with its fix.
_NOTE_OF_ENGINE = re.compile(r"^note +(?:podman|docker) .*\n(?: +.*\n)+", re.MULTILINE)


def doctor(
    home: Path, *arguments: str, around: tuple[str, ...] = (), environ: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    inherited = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    return subprocess.run(
        [*around, sys.executable, "-m", "claude_proxy", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env={**inherited, "HOME": str(home), "PYTHONPATH": str(ROOT), **environ},
        timeout=600,
    )


def with_ca(home: Path) -> None:
    home.mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "claude_proxy", "ca", "bundle"],
        check=True,
        capture_output=True,
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.usefixtures("bwrap")
def test_a_machine_that_is_well_gets_0_and_nothing_is_changed(tmp_path: Path) -> None:
    done = doctor(tmp_path / "home", "--port", "0")

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    others = _NOTE_OF_ENGINE.sub("", done.stdout)
    assert {line.split()[0] for line in others.splitlines()} == {"ok"}
    assert list((tmp_path / "home").iterdir()) == []


def test_an_allowlist_that_is_broken_makes_it_2(tmp_path: Path) -> None:
    allowlist = tmp_path / "allowlist.yaml"
    allowlist.write_text('allow: ["*"]\n')

    done = doctor(tmp_path / "home", "--allowlist", str(allowlist), "--json")

    told = json.loads(done.stdout)
    assert done.returncode == told["exit"] == 2
    [found] = [each for each in told["findings"] if each["name"] == "allowlist"]
    assert found["level"] == "error"
    assert found["fix"]


def test_a_shell_that_leads_to_no_proxy_makes_it_1(tmp_path: Path) -> None:
    leading = {"HTTPS_PROXY": "http://127.0.0.1:9"}

    done = doctor(tmp_path / "home", "--port", "9", environ=leading)

    assert done.returncode == 1, done.stdout
    assert "claude-proxy is not running on 127.0.0.1:9" in done.stdout


def test_the_clients_of_this_machine_are_told_of_truly(
    tmp_path: Path, program: FindProgram
) -> None:
    program("curl")
    with_ca(tmp_path / "home")

    done = doctor(tmp_path / "home", "--trust", "--json", environ=shims())

    told = {look["client"]: look for look in json.loads(done.stdout)["clients"]}
    for name in CLIENTS:
        if told[name]["present"] and name != "node":
            assert (told[name]["uses_proxy"], told[name]["trusts"]) == (True, True), told[name]
    # Old ones do not know the variable by which fetch heeds the proxy, and trust the CA.
    if told["node"]["present"]:
        assert told["node"]["trusts"]
    assert done.returncode == max(code_of(look) for look in told.values())


def code_of(look: Mapping[str, bool | None]) -> int:
    """Return 1 for a client that is to be fixed; a fault of its own weighs less."""
    amiss = look["present"] and False in {look["uses_proxy"], look["trusts"]}
    return 1 if amiss else 0


def shims() -> dict[str, str]:
    """Let a shim find what it stands for, as it does in its owner's home."""
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    found = {"PYENV_ROOT": home / ".pyenv", "RUSTUP_HOME": home / ".rustup"}
    return {name: str(path) for name, path in found.items() if path.exists()}


@pytest.fixture
def bwrap(program: FindProgram) -> str:
    return program("bwrap")


@pytest.mark.usefixtures("bwrap")
def test_nothing_gets_out_of_the_sandbox(tmp_path: Path) -> None:
    done = doctor(tmp_path / "home", "--attack")

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "51 of 51 attacks stopped" in done.stdout
    assert "THROUGH" not in done.stdout
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.usefixtures("bwrap")
def test_nothing_gets_out_of_a_sandbox_whose_names_have_addresses(tmp_path: Path) -> None:
    done = doctor(tmp_path / "home", "--attack", "--transparent", "on", "--json")

    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    by_name = {row["name"]: row for row in told["attacks"]}
    assert by_name["honest"]["tries"] == 3  # without the proxy settings as well
    assert by_name["fake-addresses"]["saw"][0] == "32 have an address"


@pytest.mark.usefixtures("bwrap")
def test_a_sandbox_without_its_filter_makes_it_1(tmp_path: Path) -> None:
    done = doctor(tmp_path / "home", "--attack", "--without-seccomp")

    assert done.returncode == 1
    assert "NOT SAFE" in done.stdout
    assert "canary.sock: connected" in done.stdout


def test_without_bwrap_nothing_is_tried_and_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import sys; from claude_proxy.sandbox import host_facts; "
        "host_facts.find_bwrap = lambda *_: None; "
        "from claude_proxy.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    monkeypatch.setenv("HOME", str(tmp_path))

    for arguments in (["doctor", "--port", "0"], ["doctor", "--attack"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 2
        assert "bwrap" in done.stdout + done.stderr
        assert "fix:" in done.stdout + done.stderr


@pytest.fixture
def around_nobody() -> tuple[str, ...]:
    """What runs a program as an ordinary user; nothing if we are one."""
    if os.geteuid() != 0:
        return ()
    needed = (ROOT, Path(sys.prefix), Path(sys.base_prefix))
    hidden = pwd.getpwuid(0).pw_dir
    kept = [str(path) for path in needed if path.is_relative_to(hidden)]
    user = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "env", "-i")
    words = ("PATH=/usr/bin:/bin", f"PYTHONPATH={ROOT}")
    reachable = ("unshare", "--mount", "sh", "-c", _REACHABLE, "sh", hidden, " ".join(kept))
    return (*reachable, *user, *words)


@pytest.mark.usefixtures("bwrap")
def test_nothing_gets_out_of_an_ordinary_users_sandbox(around_nobody: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        home = Path(directory)
        home.chmod(0o755)
        if around_nobody:
            os.chown(home, _NOBODY, _NOBODY)
            around_nobody = (*around_nobody, f"HOME={home}")

        done = doctor(home, "--attack", around=around_nobody)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "51 of 51 attacks stopped" in done.stdout
