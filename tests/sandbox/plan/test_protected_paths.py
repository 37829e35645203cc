"""Keys, password stores and sockets are protected at their usual and configured paths."""

from pathlib import Path

from claude_proxy.sandbox.plan import protected_paths
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import (
    CONFDIR,
    HOME,
    PROJECT,
    a_spec,
    paths,
    some_facts,
)
from tests.sandbox.plan.plans import refused


def test_a_secret_that_a_variable_names_is_not_shown() -> None:
    keys, tokens = PROJECT / "deploy/kubeconfig", Path("/data/config/gh")
    found = paths(Path("/data"), tokens, PROJECT / "deploy", files=[keys])
    environ = {"KUBECONFIG": f"{keys}:relative", "XDG_CONFIG_HOME": "/data/config"}

    planned = plan_sandbox(a_spec(), some_facts(found, environ=environ))

    assert planned.masked == (keys,)
    error = refused(a_spec(allow_ro=(Path("/data"),)), some_facts(found, environ=environ))
    assert str(tokens) in error.what


def test_a_variable_that_names_the_home_hides_nothing() -> None:
    found = plan_sandbox(a_spec(), some_facts(environ={"GNUPGHOME": str(HOME)}))

    assert found.masked == ()


def test_a_configuration_directory_elsewhere_is_protected_as_well() -> None:
    elsewhere = {"XDG_CONFIG_HOME": "/data/config"}

    found = protected_paths.protected(HOME, elsewhere, CONFDIR)

    assert {HOME / ".config/gcloud", Path("/data/config/gcloud"), CONFDIR} <= set(found)


def test_no_path_is_both_protected_and_secret() -> None:
    protected = set(protected_paths.protected(HOME, {}))

    assert protected & set(protected_paths.secret(HOME, {})) == set()


def test_every_file_of_a_list_in_a_variable_is_secret() -> None:
    found = protected_paths.secret(HOME, {"KUBECONFIG": "/data/one:/data/two:relative"})

    assert {Path("/data/one"), Path("/data/two")} <= set(found)
    assert Path("relative") not in found
