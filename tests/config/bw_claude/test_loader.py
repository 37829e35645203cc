"""Laws of names in groups files: each leads somewhere, however long the way."""

import pytest

from claude_proxy.config.bw_claude import loader
from claude_proxy.config.bw_claude.convert import convert
from claude_proxy.errors import ConfigErrors


def test_groups_may_be_as_many_levels_deep_as_there_are_groups() -> None:
    chain = "\n".join(f'[network.groups.g{n}]\ngroups = ["g{n + 1}"]' for n in range(300))
    end = '\n[network.groups.g300]\nhosts = ["x.test"]\n'

    assert len(loader.load(chain + end, name="g.toml").groups) == 301
    with pytest.raises(ConfigErrors, match='there is no group "g300"'):
        loader.load(chain, name="g.toml")


def test_groups_and_policies_that_were_built_in_are_known() -> None:
    text = (
        '[policy.policies.p.network]\nallow_groups = ["claude", "development"]\n'
        '[tools.x]\ndefault_policy = "lockdown"\n'
    )

    assert convert(text, name="g.toml").remarks == []
