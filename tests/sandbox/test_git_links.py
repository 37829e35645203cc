"""A `.git` link that cannot be covered means that nothing is run."""

import os
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git_links import cover_links
from claude_proxy.sandbox.plan.git_facts import GitMounts


def test_without_links_nothing_is_started() -> None:
    cover_links(GitMounts(), -1)


def test_a_sandbox_that_cannot_be_entered_is_an_error() -> None:
    git = GitMounts(links=((Path("/p/.git"), Path("/p/x")),))

    with pytest.raises(ClaudeProxyError, match="nothing was run"):
        cover_links(git, os.getpid())
