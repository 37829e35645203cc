"""A plan keeps the values of variables off the command line and out of a dry run."""

from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import (
    a_spec,
    some_facts,
)


def test_values_of_variables_are_not_on_the_command_line() -> None:
    facts = some_facts(environ={"TOKEN": "s3cret"})
    planned = plan_sandbox(a_spec(pass_env=("TOKEN",), seccomp=False), facts)
    descriptors = {"{info}": 5, "{block}": 6} | dict.fromkeys(planned.files, 7)

    data, argv = planned.start(descriptors, 9)

    assert b"\0--setenv\0TOKEN\0s3cret\0" in data
    assert argv == ["/usr/bin/bwrap", "--args", "9", "--", *planned.command]
    assert b"{" not in data


def test_a_dry_run_prints_everything_but_the_values_of_passed_variables() -> None:
    facts = some_facts(environ={"TOKEN": "s3cret", "LANG": "de_DE.UTF-8"})

    text = "\n".join(plan_sandbox(a_spec(pass_env=("TOKEN",)), facts).lines())

    assert "s3cret" not in text
    assert "--setenv TOKEN '***'" in text
    assert "--setenv LANG de_DE.UTF-8" in text
    assert text.endswith("/usr/bin/true")
