"""`claude-proxy container init`: writes files for compose, dev containers, Kubernetes and CI.

Laws kept: nothing is overwritten unseen: a file that differs is shown as a diff, and replaced after
a yes on the terminal or with --force. What is written names no secret.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from claude_proxy.audit.escape import escape_text
from claude_proxy.cli import paths
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container.files.model import (
    EngineChoice,
    FileKind,
    FileRequest,
    FileSet,
    PodLayout,
    name_of_directory,
)
from claude_proxy.sandbox.container.files.rendering import render
from claude_proxy.sandbox.container.guarded_names import guarded_in, refuse_project
from claude_proxy.sandbox.container.project_files import (
    ComparedFile,
    FileChange,
    compared,
    write,
)
from claude_proxy.system import selinux

EPILOG = """\b
Examples:
  claude-proxy container init compose                        compose.yaml, here
  claude-proxy container init devcontainer ~/src/app --image docker.io/library/node:22
  claude-proxy container init quadlet --image localhost/agent:latest
  claude-proxy container init compose --engine docker        for docker compose
  claude-proxy container init kubernetes --pods one          one pod, behind packet filter rules
  claude-proxy container init github-action --stdout

\b
compose        two services: the agent, without any network but the loopback of the other one
devcontainer   for VS Code and the devcontainer program, on podman or Docker
quadlet        units for podman 4.4 and newer under systemd
kubernetes     a pod for the agent and one for the proxy; --pods one: a single pod
github-action  a composite action that runs a step in a sandbox, without sudo or Docker

A file that exists and differs is shown as a diff. On a terminal you are asked whether to replace
it; elsewhere nothing is written, and the exit code is 1, unless --force is given.
"""


@click.command(name="init", epilog=EPILOG)
@click.argument("kind", metavar="KIND", type=click.Choice([kind.value for kind in FileKind]))
@click.argument(
    "directory",
    required=False,
    metavar="[DIR]",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
)
@click.option(
    "--image", metavar="IMAGE", help="The image of the agent.  [default: one of the kind]"
)
@click.option("--name", metavar="NAME", help="The name of the container.  [default: after DIR]")
@click.option(
    "--pods",
    type=click.Choice([layout.value for layout in PodLayout]),
    default=PodLayout.TWO.value,
    show_default=True,
    help="With kubernetes: the proxy in a pod of its own, or beside the agent.",
)
@click.option(
    "--engine",
    type=click.Choice([engine.value for engine in EngineChoice]),
    help="Who starts the containers: podman without root, podman as root, or Docker.  "
    "[default: podman, or podman-root for root]",
)
@click.option("--force", is_flag=True, help="Replace files that differ, without a question.")
@click.option("--stdout", is_flag=True, help="Print the files; write nothing.")
def command(
    kind: str,
    directory: Path | None,
    *,
    image: str | None,
    name: str | None,
    pods: str,
    engine: str | None,
    force: bool,
    stdout: bool,
) -> int:
    """Write files for compose, dev containers, quadlet, Kubernetes or CI."""
    place = (directory or Path.cwd()).absolute()
    chosen = FileKind(kind)
    _refuse_unused(chosen, image=image, pods=pods, engine=engine)
    engine = engine or _engine_of_user(chosen)
    if chosen in _SHOWS_PROJECT:
        owned = (paths.default_confdir(), paths.statedir_in_force())
        refuse_project(place, os.environ, Path.home(), *owned)
    request = FileRequest(
        chosen,
        name or name_of_directory(place.name),
        image,
        tuple(_spelled(chosen, image=image, name=name, pods=pods, engine=engine)),
        PodLayout(pods),
        EngineChoice(engine),
        selinux.is_enforced(),
        str(place),
        guarded_in(place),
    )
    found = render(request)
    if stdout:
        _print(found)
        return 0
    return _settle(place, found, force=force)


def _engine_of_user(kind: FileKind) -> str:
    """Return podman as the user has it: root's has no namespace for other users."""
    if kind in _SHOWS_PROJECT and os.geteuid() == 0:
        return EngineChoice.PODMAN_ROOT.value
    return EngineChoice.PODMAN.value


def _refuse_unused(kind: FileKind, *, image: str | None, pods: str, engine: str | None) -> None:
    """Refuse an option that the kind would ignore."""
    if image is not None and kind is FileKind.GITHUB_ACTION:
        raise ConfigError(
            "the action runs in the runner's own system, so it has no image",
            where="--image",
            fix="leave it out",
        )
    if pods != PodLayout.TWO and kind is not FileKind.KUBERNETES:
        raise ConfigError(f"{kind} has no pods", where="--pods", fix="leave it out")

    if engine is not None and engine not in _ENGINES.get(kind, {EngineChoice.PODMAN}):
        raise ConfigError(
            f"{kind} files are the same for every engine"
            if kind is not FileKind.QUADLET
            else "only podman reads quadlet files",
            where="--engine",
            fix="leave it out",
        )


# Their containers see the project as it is on this machine.
_SHOWS_PROJECT = frozenset({FileKind.COMPOSE, FileKind.DEVCONTAINER, FileKind.QUADLET})
_ENGINES = {
    FileKind.COMPOSE: frozenset(EngineChoice),
    FileKind.DEVCONTAINER: frozenset(EngineChoice),
    FileKind.QUADLET: frozenset({EngineChoice.PODMAN, EngineChoice.PODMAN_ROOT}),
}


def _spelled(
    kind: FileKind, *, image: str | None, name: str | None, pods: str, engine: str
) -> Sequence[str]:
    words = [kind.value]
    words += [] if image is None else ["--image", image]
    words += [] if name is None else ["--name", name]
    words += [] if pods == PodLayout.TWO else ["--pods", pods]
    words += [] if engine == EngineChoice.PODMAN else ["--engine", engine]
    return [shlex.quote(word) for word in words]


def _print(found: FileSet) -> None:
    # One file is printed as it is, so that it can be piped into the program that reads it.
    if len(found.files) == 1:
        click.echo(found.files[0].text, nl=False)
        return
    click.echo("\n".join(f"# ---- {file.path}\n{file.text}" for file in found.files), nl=False)


def _settle(place: Path, found: FileSet, *, force: bool) -> int:
    """Write what is new or may be replaced, and say what happened to each file."""
    rows = compared(place, found.files)
    different = [row for row in rows if row.change is FileChange.DIFFERENT]
    for row in different:
        _show(row)
    if different and not force and not _agreed(place, different):
        click.echo("nothing was written")
        return 1
    written = [row for row in rows if row.change in {FileChange.NEW, FileChange.DIFFERENT}]
    write(place, [row.file for row in written])
    for row in rows:
        click.echo(f"{_SAID[row.change]} {place / row.file.path}")
    if written:
        for number, step in enumerate(found.steps):
            click.echo(f"{'next:' if number == 0 else '     '} {step}")
    return 0


_SAID = {
    FileChange.NEW: "wrote",
    FileChange.DIFFERENT: "replaced",
    FileChange.SAME: "unchanged:",
    FileChange.KEPT: "kept, as it is yours:",
}


def _show(row: ComparedFile) -> None:
    for line in row.diff():
        click.echo(escape_text(line))


def _agreed(place: Path, different: Sequence[ComparedFile]) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        names = ", ".join(str(row.file.path) for row in different)
        raise ClaudeProxyError(
            "files that exist differ, and there is no terminal to ask on; nothing was written",
            where=f"{place}: {names}",
            fix="look at the diff above, then add --force",
        )
    what = "this file" if len(different) == 1 else f"these {len(different)} files"
    return click.confirm(f"claude-proxy: replace {what}?", default=False, err=True)
