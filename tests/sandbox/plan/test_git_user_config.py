"""The user's name and aliases are shown inside, and credentials in Git's configuration are not."""

import pytest

from claude_proxy.sandbox.plan.git_user_config import without_credentials

HARMLESS = """\
[user]
\tname = Ann
\temail = ann@example.com
\tsigningkey = 0123456789ABCDEF0123
[alias]
\tlg = log --graph \\
  --oneline
[url "git@github.com:"]
\tinsteadOf = https://github.com/
[url "ssh://git@host.example/"]
\tinsteadOf = https://host.example/
[credential]
\thelper = store
[core]
\tsshCommand = ssh -i ~/.ssh/id
"""


def test_a_configuration_without_credentials_is_shown_as_it_is() -> None:
    assert without_credentials(HARMLESS) is None
    assert without_credentials("") is None


@pytest.mark.parametrize(
    "lines",
    [
        '[http]\n\textraHeader = "AUTHORIZATION: basic U0VDUkVUU0VDUkVU"\n',
        '[http "https://git.example"]\n\textraheader = SECRET\n',
        '[url "https://ann:SECRET@git.example/"]\n\tinsteadOf = https://git.example/\n',
        '[url "https://ghp_SECRETSECRETSECRET@github.com/"]\n\tinsteadOf = gh:\n\tx = SECRET\n',
        '[url "a"]\n\tinsteadOf = https://ann:SECRET@git.example/\n',
        "[sendemail]\n\tsmtpPass = SECRET\n",
        "[github]\n\toauth-token = SECRET\n",
        "[gitlab] token = SECRET\n[gitlab]\n\ttoken = SECRET\n",
        '[credential]\n\thelper = "!f() { echo username=a; echo password=SECRET; }; f"\n',
        "[http]\n\tproxy = http://ann:SECRET@proxy.example:8080\n",
        "[http]\n\textraHeader = \\\n  SECRET\\\n  SECRET\n",
        "[a]\n\tx = one \\\n  password=SECRET \\\n  SECRET\n",
    ],
)
def test_a_line_that_holds_a_credential_is_left_out_and_the_rest_is_not(lines: str) -> None:
    found = without_credentials(f"[user]\n\tname = Ann\n{lines}[alias]\n\tst = status\n")

    assert found is not None
    assert "SECRET" not in found
    assert "name = Ann" in found
    assert "st = status" in found
