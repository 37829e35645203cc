"""Laws of the import of lists: printed or written whole, never over a file without --force."""

import json
from pathlib import Path

import pytest

from claude_proxy.cli import main
from claude_proxy.config import policy_files
from claude_proxy.config.owner_files import OwnerFiles

SQUID = """\
acl good dstdomain .a.com
acl bad dstdomain ads.a.com
http_access deny bad
http_access allow good
http_access deny all
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "squid.conf"
    path.write_text(SQUID, "utf-8")
    return path


def test_the_policy_is_printed_and_the_rest_told(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["import", "squid", str(file)]) == 0

    out, err = capsys.readouterr()
    assert out.startswith(f"# Converted from {file} by `claude-proxy import squid`.\n")
    assert "deny:\n" in out
    assert f"narrower: {file}:4: of the ports" in err
    assert "opens: " in err


def test_a_policy_by_name_can_be_used_at_once(file: Path, tmp_path: Path) -> None:
    words = ["import", "squid", str(file), "--policy", "office", "--confdir", str(tmp_path / "c")]

    assert main.main(words) == 0

    policy = policy_files.read_named(OwnerFiles(tmp_path / "c"), "office").policy
    assert list(policy.hosts()) == [".a.com"]
    assert (tmp_path / "c" / "policies" / "office.yaml").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_stays_and_the_change_is_shown(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there.yaml"
    there.write_text("allow: [b.org]\n")
    words = ["import", "squid", str(file), "--output", str(there)]

    assert main.main(words) == 2
    out, err = capsys.readouterr()
    assert "-allow: [b.org]" in out
    assert "the file exists, and nothing was written" in err
    assert "closes: " in err
    assert there.read_text() == "allow: [b.org]\n"
    assert main.main([*words, "--force"]) == 0
    assert there.read_text().startswith("# Converted from")


def test_json_has_everything(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["import", "squid", str(file), "--json"]) == 0

    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert "allow:" in found["policy"]
    assert {each["kind"] for each in found["remarks"]} == {"narrower"}
    assert found["remarks"][0]["line"] == 4


@pytest.mark.parametrize(
    "words",
    [
        ["--output", "o", "--policy", "p"],
        ["--policy", "No Name"],
        ["--force"],
        ["--output", "squid.conf", "--force"],
        ["--client", "nobody"],
        ["--output", "/dev/null/x"],
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    file: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)

    assert main.main(["import", "squid", "squid.conf", *words]) == 2
    assert file.read_text() == SQUID


@pytest.mark.parametrize(
    ("tool", "text", "host"),
    [
        ("srt", '{"network": {"allowedDomains": ["a.com"]}}', "a.com"),
        ("claude-code", '{"permissions": {"allow": ["WebFetch(domain:a.com)"]}}', "a.com"),
        ("hosts", "a.com\n", "a.com"),
        ("tinyproxy", 'Filter "f"\nFilterDefaultDeny Yes\nFilterExtended On\n', "a.com"),
    ],
)
def test_every_kind_of_file_has_its_command(
    tool: str, text: str, host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f").write_text("^a\\.com$\n")
    (tmp_path / "in").write_text(text)

    assert main.main(["import", tool, str(tmp_path / "in")]) == 0
    assert f"- {host}\n" in capsys.readouterr().out


@pytest.mark.parametrize("tool", ["squid", "tinyproxy", "srt", "claude-code", "hosts"])
@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"\x00\x01", b"{" * 5000])
def test_any_file_is_converted_or_refused_without_a_traceback(
    tool: str, raw: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").write_bytes(raw)

    assert main.main(["import", tool, str(tmp_path / "in")]) in {0, 2}
    assert "internal error" not in capsys.readouterr().err


def test_a_large_policy_is_compared_by_its_entries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, source = tmp_path / "there.yaml", tmp_path / "list"
    there.write_text("allow: [b.org]\ndeny: [evil.com]\n")
    source.write_text("".join(f"h{at}.example.com\n" for at in range(1100)))

    main.main(["import", "hosts", str(source), "--output", str(there), "--json"])

    found = json.loads(capsys.readouterr().out)
    assert "https://h7.example.com ports 443" in found["opens"]
    assert "no longer denied: evil.com" in found["opens"]
    assert found["closes"] == ["https://b.org ports 443"]
