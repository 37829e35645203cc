"""Keeps the laws of `claude-proxy env`: what it prints means the same in every shell."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.cli.env import (
    DIALECTS,
    Shell,
    assignments,
    quote_dotenv,
    quote_fish,
    quote_nu,
    shell_of,
)
from claude_proxy.cli.main import main
from claude_proxy.errors import ConfigError
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.client_environment import Variable
from tests.conftest import NOT_INSTALLED, TOOLS

RUN = {
    "sh": ["sh", "-c", ". {file}; exec {python} {printer}"],
    "bash": ["bash", "-c", ". {file}; exec {python} {printer}"],
    "dash": ["dash", "-c", ". {file}; exec {python} {printer}"],
    "zsh": ["zsh", "-f", "-c", ". {file}; exec {python} {printer}"],
    "fish": ["fish", "--no-config", "-c", "source {file}; exec {python} {printer}"],
    "nu": ["nu", "--no-config-file", "-c", "source {file}; ^{python} {printer}"],
}
SEARCHED = os.pathsep.join([str(TOOLS), os.environ["PATH"]])
PRINTER = "import json, os; print(json.dumps(dict(os.environ)))"

AWKWARD = [
    "plain",
    "a b",
    "it's",
    'say "hi"',
    "$HOME `id` $(id)",
    "back\\slash\\",
    "#;&|<>*?[~",
    "ü€",
]


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    return tmp_path / "claude-proxy"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    code = main(["env", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    code = main(["env", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    return err


def environment_after(shell: str, text: str, directory: Path) -> dict[str, str]:
    """Let the shell read `text` and return the environment of a program that it starts."""
    file, printer = directory / "variables", directory / "printer.py"
    file.write_text(text, encoding="utf-8")
    printer.write_text(PRINTER)
    program, *rest = RUN[shell]
    facts = {"file": file, "python": sys.executable, "printer": printer}
    found = shutil.which(program, path=SEARCHED)
    if found is None:
        pytest.skip(f"{program} {NOT_INSTALLED}")
    done = subprocess.run(
        [found, *(word.format(**facts) for word in rest)],
        capture_output=True,
        text=True,
        check=True,
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8"},
    )
    environment = json.loads(done.stdout)
    assert isinstance(environment, dict)
    return environment


def dialect_of(shell: str) -> Shell:
    return Shell(shell) if shell in ("fish", "nu") else Shell.SH


@pytest.mark.parametrize("shell", RUN)
def test_a_shell_that_runs_it_has_every_variable(
    shell: str, confdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, "--shell", dialect_of(shell), "--comments", "--confdir", confdir)

    found = environment_after(shell, text, tmp_path)

    expected = json.loads(printed(capsys, "--shell", "json", "--confdir", confdir))
    assert expected["HTTPS_PROXY"] == "http://127.0.0.1:9051"
    # Some versions of Nushell keep the first of http_proxy and HTTP_PROXY alone.
    missing = {name for name, value in expected.items() if found.get(name) != value}
    assert missing <= (
        {name for name in expected if name.lower() in found} if shell == "nu" else set()
    )


@pytest.mark.parametrize("shell", RUN)
def test_awkward_values_arrive_as_they_are(shell: str, tmp_path: Path) -> None:
    wanted = {f"VARIABLE_{number}": value for number, value in enumerate(AWKWARD)}
    made = [Variable(name, value, "a tool", "a reason") for name, value in wanted.items()]

    found = environment_after(shell, "\n".join(assignments(dialect_of(shell), made)), tmp_path)

    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("shell", RUN)
def test_unset_takes_every_variable_back(
    shell: str, confdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--shell", dialect_of(shell), "--java", "--confdir", confdir)
    text = printed(capsys, *arguments) + printed(capsys, *arguments, "--unset")

    found = environment_after(shell, text, tmp_path)

    names = json.loads(printed(capsys, "--shell", "json", "--java", "--confdir", confdir))
    assert "JAVA_TOOL_OPTIONS" in names
    assert not names.keys() & found.keys()


def test_unset_needs_no_ca(confdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--unset", "--shell", "sh", "--confdir", confdir).startswith("unset ")
    assert not confdir.exists()


def test_eval_without_quotes_works_as_well(
    confdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, "--shell", "sh", "--confdir", confdir)

    found = environment_after("sh", " ".join(text.split()), tmp_path)

    assert found["SSL_CERT_FILE"] == str(confdir / "ca-bundle.pem")


@given(text=st.text())
def test_fish_reads_back_what_was_quoted(text: str) -> None:
    quoted = quote_fish(text)

    # fish's manual: between single quotes only \' and \\ are escapes.
    assert re.fullmatch(r"'(?:[^'\\]|\\['\\])*'", quoted, re.DOTALL)
    assert re.sub(r"\\(['\\])", r"\1", quoted[1:-1]) == text


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_nushell_reads_back_what_was_quoted(text: str) -> None:
    quoted = quote_nu(text)

    # Nushell's book: C-style escapes between double quotes, as JSON's for what is printable.
    assert json.loads(quoted) == text


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_a_dotenv_value_is_bare_or_literal_or_refused(text: str) -> None:
    if "'" in text or "\\" in text:
        with pytest.raises(ConfigError, match="quote or a backslash"):
            quote_dotenv(text)
    else:
        bare = not set(text) & set(' #$"`') and quote_dotenv(text) == text
        assert bare or quote_dotenv(text) == f"'{text}'"


def test_a_dotenv_file_has_a_line_a_variable(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "--shell", "dotenv", "--confdir", confdir).splitlines()

    expected = json.loads(printed(capsys, "--shell", "json", "--confdir", confdir))
    assert dict(line.split("=", 1) for line in lines) == expected


def test_a_dotenv_file_that_readers_would_disagree_on_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(capsys, "--shell", "dotenv", "--confdir", tmp_path / "it's")

    assert "another --shell" in err


@pytest.mark.parametrize("shell", [*DIALECTS, Shell.JSON])
def test_a_line_break_in_the_path_is_refused_for_every_shell(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "control character" in refused(capsys, "--shell", shell, "--confdir", tmp_path / "a\nb")


@pytest.mark.parametrize(
    ("path", "shell"),
    [
        ("/usr/bin/fish", Shell.FISH),
        ("/opt/nu/bin/nu", Shell.NU),
        ("nu", Shell.NU),
        ("/bin/bash", Shell.SH),
        ("/bin/zsh", Shell.SH),
        ("/bin/json", Shell.SH),
        ("", Shell.SH),
    ],
)
def test_the_shell_is_the_users_own(path: str, shell: Shell) -> None:
    assert shell_of(path) is shell


def test_the_shell_is_read_from_the_environment(
    confdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert printed(capsys, "--confdir", confdir).startswith("set -gx http_proxy ")

    monkeypatch.delenv("SHELL")
    assert printed(capsys, "--confdir", confdir).startswith("export http_proxy=")


def test_the_ca_and_the_bundle_are_made_before_the_first_start(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, "--confdir", confdir)

    authority = CertificateAuthority.load(confdir)
    assert (confdir / "ca-bundle.pem").read_bytes() == authority.bundle_pem()
    assert not (confdir / "ca-bundle.p12").exists()


def test_java_has_its_trust_store_when_asked_for(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, "--shell", "sh", "--java", "--confdir", confdir)

    assert f"-Djavax.net.ssl.trustStore={confdir}/ca-bundle.p12" in text
    assert (confdir / "ca-bundle.p12").exists()


def test_a_relative_directory_is_printed_as_an_absolute_one(
    confdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(confdir.parent)

    found = json.loads(printed(capsys, "--shell", "json", "--confdir", confdir.name))

    assert found["NODE_EXTRA_CA_CERTS"] == str(confdir / "mitmproxy-ca-cert.pem")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9052"),
        ("::1", "http://[::1]:9052"),
        ("[::1]", "http://[::1]:9052"),
        ("0.0.0.0", "http://127.0.0.1:9052"),
        ("::", "http://[::1]:9052"),
        ("Proxy.Example.", "http://proxy.example:9052"),
    ],
)
def test_the_url_is_where_clients_reach_the_proxy(
    confdir: Path, capsys: pytest.CaptureFixture[str], host: str, url: str
) -> None:
    arguments = ("--shell", "json", "--confdir", confdir, "--host", host, "--port", "9052")

    assert json.loads(printed(capsys, *arguments))["HTTPS_PROXY"] == url


def test_it_reads_the_variables_that_serve_reads(
    confdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_HOST", "10.0.0.1")
    monkeypatch.setenv("CLAUDE_PROXY_PORT", "1234")
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(confdir))

    found = json.loads(printed(capsys, "--shell", "json"))

    assert found["HTTPS_PROXY"] == "http://10.0.0.1:1234"
    assert found["SSL_CERT_FILE"] == str(confdir / "ca-bundle.pem")


@pytest.mark.parametrize("host", ["", "a b", "user@host", "http://host", "host:80", "127.1"])
def test_a_host_that_is_none_is_refused(
    confdir: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    assert "--host" in refused(capsys, "--confdir", confdir, "--host", host)
    assert not confdir.exists()


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert "--port" in refused(capsys, "--port", port)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--shell", "json", "--comments"),
        ("--shell", "json", "--unset"),
        ("--shell", "dotenv", "--unset"),
    ],
)
def test_what_a_format_cannot_say_is_refused(
    confdir: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert refused(capsys, *arguments, "--confdir", confdir)


def test_comments_say_who_reads_a_variable_and_why(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "--shell", "sh", "--comments", "--confdir", confdir).splitlines()

    place = lines.index(f"export PIP_CERT={confdir}/ca-bundle.pem;")
    assert lines[place - 1].startswith("# pip: ")


def test_an_unusable_ca_prints_nothing_to_run(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CertificateAuthority.load_or_create(confdir)
    (confdir / "mitmproxy-ca.pem").chmod(0o644)

    assert "chmod" in refused(capsys, "--confdir", confdir)


@pytest.mark.parametrize("module", ["env", "ca"])
def test_it_starts_without_mitmproxy_and_the_allowlist(module: str) -> None:
    heavy = ("mitmproxy", "yaml", "publicsuffixlist", "asyncio")
    program = (
        f"import sys, claude_proxy.cli.{module}; print(sorted(set(sys.modules) & {set(heavy)}))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert done.stdout == b"[]\n"
