"""Real sandboxes in which git has private directories."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.git.private_repositories import prepared
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import Box, Done, started
from tests.sandbox.git.repositories import git

IDENTITY = 'git() { command git -c user.name=a -c user.email=a@x.example "$@"; }; '


@dataclass
class GitBox:
    """A box whose project is a repository, and what was said about its runs."""

    box: Box
    said: list[str] = field(default_factory=list)

    @property
    def tree(self) -> Path:
        return self.box.project

    @property
    def statedir(self) -> Path:
        return self.box.home / ".local/state/claude-proxy"

    def outside(self, *words: str | Path) -> str:
        return git(*words, at=self.tree)

    @contextmanager
    def prepared(self, **changes: object) -> Iterator[GitMounts]:
        spec = self.box.spec("/bin/true", **changes)
        with prepared(spec, self.statedir, "r", self.said.append) as found:
            yield found

    def sh(self, script: str, **changes: object) -> Done:
        """Run a script in a sandbox, and bring over what it committed."""
        spec = self.box.spec("/bin/sh", "-c", IDENTITY + script, **changes)
        with prepared(spec, self.statedir, "r", self.said.append) as found:
            facts = host_facts.gather(
                spec,
                environ={"PATH": "/usr/bin:/bin", "HOME": str(self.box.home)},
                confdir=self.box.home / ".config/claude-proxy",
                statedir=self.statedir,
                run_directory=self.box.home / "rundir",
                shown={"ca.pem": b"a certificate"},
                git=found,
            )
            return started(plan_sandbox(spec, facts))
