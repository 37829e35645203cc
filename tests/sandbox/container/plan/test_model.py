"""A plan says what a dry run has to: the way, the image's digest, the policy, the whole command."""

from tests.support.container_parts import a_plan, a_run_plan


def test_a_dry_run_prints_the_way_the_image_the_policy_and_the_command() -> None:
    text = "\n".join(a_plan().lines())

    assert "# way: enter" in text
    assert "sha256:d16e57" in text
    assert "# policy: claude" in text
    assert "/usr/bin/podman create" in text
    assert "--network none" in text
    assert "sh -c 'exit 1'" in text


def test_a_dry_run_names_the_variables_and_hides_what_was_passed_by_name() -> None:
    lines = [*a_plan(planned=a_run_plan(TOKEN="sesame")).lines()]

    assert "# variable: TOKEN='***'" in lines
    assert "# variable: HTTPS_PROXY=http://127.0.0.1:3128" in lines
