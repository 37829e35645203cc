"""Laws of conversion: what is allowed stays, a denial is never lost, exceptions are told."""

from collections.abc import Iterable

import pytest

from claude_proxy.config import preset_files
from claude_proxy.config.allowlist.loader import Library, read
from claude_proxy.config.allowlist.model import Default, NetworkMode, PolicyFile
from claude_proxy.config.bw_claude.convert import Conversion, convert
from claude_proxy.config.strict_yaml import nodes
from claude_proxy.wire.authority import Authority


def group(name: str, hosts: Iterable[str] = (), deny: Iterable[str] = ()) -> str:
    return f"[network.groups.{name}]\nhosts = {list(hosts)}\nhosts_deny = {list(deny)}\n"


def converted(*parts: str) -> Conversion:
    return convert("\n".join(parts), name="g.toml")


def policy_in(found: Conversion, name: str = "p") -> PolicyFile:
    def preset(wanted: str) -> str:
        own = found.files.get(f"presets/{wanted}.yaml")
        return preset_files.text(wanted) if own is None else own

    return read(found.files[f"policies/{name}.yaml"], name="p.yaml", library=Library(preset))


def allows(found: Conversion, target: str) -> bool:
    return policy_in(found).policy.decide_connect(Authority(target, 443)).allowed


P = "[policy.policies.p.network]\n"


def test_hosts_of_an_allowed_group_are_allowed() -> None:
    found = converted(
        group("a", ["x.test", "*.y.test", "192.0.2.0/24"]), P + 'allow_groups = ["a"]'
    )

    assert allows(found, "x.test")
    assert allows(found, "b.y.test")
    assert allows(found, "192.0.2.7")
    assert not allows(found, "y.test")
    assert found.remarks == []


def test_groups_in_groups_and_presets_come_along() -> None:
    inner = '[network.groups.b]\ngroups = ["a", "preset:nodejs"]\n'

    found = converted(group("a", ["x.test"]), inner, P + 'allow_groups = ["b"]')

    assert allows(found, "x.test")
    assert allows(found, "nodejs.org")


@pytest.mark.parametrize("built_in", ["claude", "gemini", "development"])
def test_groups_that_were_built_in_are_presets(built_in: str) -> None:
    found = converted(P + f'allow_groups = ["{built_in}"]')

    assert policy_in(found).policy.allow


@pytest.mark.parametrize(
    "denial", ['deny_groups = ["d"]', 'deny_groups = ["e"]', 'allow_groups = ["d2"]']
)
def test_a_denial_is_never_lost(denial: str) -> None:
    parts = (
        group("d", ["x.test"]),
        '[network.groups.e]\ngroups = ["d"]\n',
        group("d2", [], ["x.test"]),
    )

    found = converted(*parts, P + 'default = "allow"\n' + denial)

    assert not allows(found, "x.test")
    assert allows(found, "y.test")


def test_a_preset_that_is_denied_is_denied_whole() -> None:
    found = converted(P + 'default = "allow"\ndeny_groups = ["preset:nodejs"]')

    assert not allows(found, "nodejs.org")


def test_an_exception_from_a_denial_is_told_with_its_line() -> None:
    parts = (group("a", ["a.x.test", "b.test"]), group("d", ["*.x.test"]))

    found = converted(*parts, P + 'allow_groups = ["a"]\ndeny_groups = ["d"]')

    (remark,) = found.remarks
    assert str(remark).startswith(
        "g.toml:2: in the policy p a.x.test was allowed although *.x.test"
    )
    assert not allows(found, "a.x.test")
    assert allows(found, "b.test")


def test_a_tie_was_a_denial_and_needs_no_remark() -> None:
    parts = (group("a", ["x.test"]), group("d", ["x.test", "a.x.test"]))

    found = converted(*parts, P + 'allow_groups = ["a"]\ndeny_groups = ["d"]')

    assert found.remarks == []


@pytest.mark.parametrize(("old", "new"), [("disabled", "none"), ("open", "open")])
def test_a_policy_without_the_proxy_keeps_its_network(old: str, new: str) -> None:
    text = P + f'network = "{old}"\nallow_groups = ["a"]\n'

    found = converted(group("a", ["x.test"]), text)

    assert policy_in(found).network is NetworkMode(new)
    assert "the group a has no effect without the proxy" in str(found.remarks[0])


def test_a_policy_keeps_its_description_profile_and_default() -> None:
    text = (
        '[policy.policies.p]\ndescription = "odd: \\"\\\\ \\u202e\\U0001F600"\n'
        'filesystem = "claude"\nnetwork.default = "allow"\n'
    )

    file = policy_in(converted(text))

    assert file.description == 'odd: "\\ \u202e\U0001f600'
    assert (file.profile, file.default) == ("claude", Default.ALLOW)


def test_names_become_names_of_files_and_none_hides_a_shipped_preset() -> None:
    names = ("Mine", "_mine", "github")
    lists = ", ".join(f'"{name}"' for name in names)

    found = converted(
        *(group(name, [f"{name.strip('_')}.test"]) for name in names),
        P + f"allow_groups = [{lists}]",
    )

    assert [name for name in found.files if name.startswith("presets/")] == [
        "presets/mine.yaml",
        "presets/my-mine.yaml",
        "presets/my-github.yaml",
    ]
    assert allows(found, "github.test")


def test_the_policy_of_a_tool_becomes_one_of_its_profile() -> None:
    found = converted(
        '[tools.claude]\ndefault_policy = "lockdown"\n[tools.Make]\ndefault_policy = "p"\n', P
    )

    text = found.files["profiles/claude.yaml"]
    assert text.endswith('extends: claude\ncommands: ["claude"]\npolicy: lockdown\n')
    assert "profiles/Make.yaml" not in found.files
    assert "claude-proxy run --policy p -- Make" in str(found.remarks[0])


def test_every_file_is_strict_yaml_and_says_where_it_comes_from() -> None:
    found = converted(group("a", ["x.test"]), P, '[tools.x]\ndefault_policy = "p"\n')

    for text in found.files.values():
        problems = nodes.Problems("f")
        nodes.parse(text, problems)
        assert not problems
        assert text.startswith("# Converted from g.toml by")
