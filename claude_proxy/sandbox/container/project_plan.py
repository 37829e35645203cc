"""What a container shows of the project and of named paths, judged as for a `run`.

The same planner decides, with the same refusals; only its mounts are used, and its environment.
Law kept: no quiet downgrade.
"""

import os
from pathlib import Path

from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox import credentials, host_facts
from claude_proxy.sandbox.container.shown_sockets import refuse_sockets, sockets_in
from claude_proxy.sandbox.credentials import Bindings
from claude_proxy.sandbox.plan.environment import ALLOWLIST
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import Mount, MountKind, SandboxPlan, UnixSockets
from claude_proxy.sandbox.plan.planner import plan_sandbox
from claude_proxy.sandbox.plan.protected_files import protected_files
from claude_proxy.sandbox.run_spec import SHOWN, RunSpec, shown_files
from claude_proxy.sandbox.second_names import refuse_second_names
from claude_proxy.system.runs import base_of

# No bwrap is started: of a version that can do everything.
_NO_BWRAP = (Path("bwrap"), (1, 0))
_NAMED = 5
_TOO_LARGE = "{} is too large to look for Unix sockets everywhere in it"


def plan_of_run(
    run_spec: RunSpec, bindings: Bindings, *, git: GitMounts | None = None, dry: bool = False
) -> tuple[SandboxPlan, dict[str, bytes]]:
    """Return the plan of a run of the same project, and the files that it shows.

    ConfigError if something must not be shown, or would be writable that must not be.
    """
    settings = run_spec.settings
    spec = credentials.with_isolation(_without_home(run_spec), bindings, os.environ, dry=dry)
    shown = dict.fromkeys(SHOWN, b"") if dry else shown_files(run_spec)
    seen = host_facts.gather(
        spec,
        environ=os.environ,
        confdir=settings.confdir,
        statedir=settings.statedir,
        run_directory=base_of(os.environ),
        shown={name: text for name, text in shown.items() if name != ALLOWLIST.name},
        git=git or GitMounts(),
        bwrap=_NO_BWRAP,
    )
    # The image has roots of its own; hundreds of links of the host's would be planned for nothing.
    planned = plan_sandbox(spec, replace(seen, certificates={}))
    named = (
        *(("--allow-ro", path) for path in spec.allow_ro),
        *(("--allow-rw", path) for path in spec.allow_rw),
    )
    notes = [_TOO_LARGE.format(path) for path in refuse_sockets(named)]
    notes += refuse_second_names(protected_files(planned.mounts))
    planned = replace(planned, notes=(*planned.notes, *notes))
    return planned if spec.clone else _without_sockets(planned), shown


def _without_sockets(planned: SandboxPlan) -> SandboxPlan:
    """Cover the sockets in the project, at which programs outside would answer."""
    found = sockets_in(planned.project)
    covers = tuple(Mount(MountKind.BLANK, path) for path in found.paths)
    names = [str(path.relative_to(planned.project)) for path in found.paths]
    notes = list(planned.notes)
    if names:
        notes.append(f"Unix sockets in the project are hidden: {', '.join(names[:_NAMED])}")
    if not found.complete:
        notes.append(_TOO_LARGE.format("the project"))
    return replace(planned, mounts=(*planned.mounts, *covers), notes=tuple(notes))


def _without_home(run_spec: RunSpec) -> RunSpec:
    """Return the run without what its profile shows of the user's home, and without COMMAND.

    The container has a home of its own, and its programs are those of the image.
    """
    profile = replace(
        run_spec.sandbox.profile,
        home_state=(),
        home_seed=(),
        home_login=(),
        home_write=(),
        home_read=(),
        home_protect=(),
    )
    sandbox = replace(  # noqa: S604 - not subprocess's `shell`
        run_spec.sandbox,
        profile=profile,
        command=(),
        shell=True,
        unix_sockets=UnixSockets.NONE,
    )
    return replace(run_spec, sandbox=sandbox)
