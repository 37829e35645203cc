"""Laws of groups: a near miss is named and never taken."""

import pytest

from claude_proxy.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["chek"], "did you mean check?"),
        (["alow", "a.test"], "did you mean allow?"),
        (["LOG"], "did you mean log?"),
        (["ps"], "claude-proxy status"),
        (["deny", "a.test"], "deny:"),
        (["sh"], "claude-proxy run -- sh"),
        (["qqqqqqqq"], "see `claude-proxy --help`"),
        (["ca", "rotat"], "did you mean rotate?"),
        (["ca", "qqqq"], "use one of bundle, path, rotate, show, trust"),
        (["credentials", "frget"], "did you mean forget?"),
        (["import", "bw"], "bw-claude"),
        (["serve", "--prot", "1"], "did you mean --port?"),
        (["run", "--polcy", "x"], "did you mean --policy?"),
        (["log", "--deny"], "did you mean --denied?"),
        (["log", "--qqqqqqqq"], "see `claude-proxy log --help`"),
        (["run", "--profile", "claud", "--", "true"], "did you mean claude?"),
        (["run", "--policy", "shel", "--", "true"], "did you mean shell?"),
    ],
)
def test_a_near_miss_is_named_and_not_taken(
    arguments: list[str], fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    (line,) = [line for line in capsys.readouterr().err.splitlines() if "fix:" in line]
    assert fix in line


@pytest.mark.parametrize("name", ["ca", "config", "import", "service"])
def test_a_group_alone_prints_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 2

    err = capsys.readouterr().err
    assert err.startswith(f"Usage: claude-proxy {name} ")
    assert "\nCommands:\n" in err
    assert "error" not in err
