"""Updates of a container: its package manager runs in a copy of its image, on a network of its own.

Laws kept: fail closed; the sandbox cannot move its own wall. The container goes on meanwhile and
nothing of its network is opened, not even for a moment: the package manager has its own proxy, with
rules that read archives. The result is the container's next image, once it has been checked. If the
package manager fails, or anything is killed, the container is as it was.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from claude_proxy.config.settings import Settings
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import image_build, next_image
from claude_proxy.sandbox.container.engine import Engine, EngineError
from claude_proxy.sandbox.container.image_build import BuildRules, BuildSteps
from claude_proxy.sandbox.container.plan import hardening, update_words
from claude_proxy.sandbox.container.plan.image_presets import PRESETS
from claude_proxy.sandbox.container.plan.update_words import MANAGERS, PackageManager
from claude_proxy.sandbox.container.store import StoredContainer
from claude_proxy.sandbox.container.work_directory import work_directory
from claude_proxy.sandbox.container.workbench import Reports, Workbench, workbench

_SECCOMP = "seccomp.json"


class UpdateFailedError(ClaudeProxyError):
    """The package manager failed; its exit code is the program's."""

    def __init__(self, code: int, where: str) -> None:
        super().__init__(
            f"the update failed (exit code {code}); the container is as it was",
            where=where,
            fix="see its last lines; what the proxy denied is in `claude-proxy log --denied`",
        )
        self.exit_code = code


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """What is to run in the image of a container."""

    command: tuple[str, ...] = ()  # empty: the package manager that is in the image
    rules: BuildRules = BuildRules(presets=update_words.ALL_PRESETS)


def update(
    engine: Engine,
    stored: StoredContainer,
    request: UpdateRequest,
    settings: Settings,
    reports: Reports,
) -> str:
    """Update the image of a container; return the id of its next image.

    UpdateFailedError, with the command's exit code, if that fails.
    """
    image_build.refuse_docker(engine)

    def removed(work: Path) -> None:
        image_build.remove_leftovers(engine, work)

    with work_directory(settings.statedir, "update", removed) as work:
        base = next_image.of(settings.statedir, stored.name) or stored.image_id
        manager = None if request.command else _manager_in(engine, base)
        command = request.command or (manager.command if manager else ())
        rules = request.rules
        if manager is not None:
            rules = replace(rules, presets=manager.presets)
        with (
            image_build.build_network(rules, settings, "update", reports) as network,
            workbench(engine, work, network, reports) as bench,
        ):
            try:
                image = _updated(bench, base, command)
                _check(engine, stored, image, manager)
                _adopt(engine, settings.statedir, stored, image, base)
            finally:
                removed(work.path)
    return image


def _manager_in(engine: Engine, image: str) -> PackageManager:
    """Return the package manager of an image."""
    for one in MANAGERS:
        with contextlib.suppress(EngineError):
            image_build.run_once(engine, image, one.probe)
            return one
    names = ", ".join(one.program for one in MANAGERS)
    raise ClaudeProxyError(
        "no package manager is in the container's image",
        where=image,
        fix=f"known are {names}; name the command: claude-proxy container update NAME -- COMMAND",
    )


def _updated(bench: Workbench, base: str, command: Sequence[str]) -> str:
    """Run the command in a copy of the image; return the id of the result."""
    user = image_build.config_of(bench.engine, base).get("User", "")
    tag = update_words.work_tag(bench.work.name)
    bench.engine.call("tag", base, tag)
    context = bench.work.path / "context"
    context.mkdir()
    steps = BuildSteps(
        update_words.containerfile(tag, command, user),
        context,
        confinement=update_words.update_options(_seccomp(bench)),
        image_format="docker",  # the one that keeps all of an image's configuration
    )
    image, code = image_build.run_build(bench, steps)
    if image is None:
        raise UpdateFailedError(code, str(bench.work.log))
    return image


def _seccomp(bench: Workbench) -> Path | None:
    """Return the engine's own filter of system calls, narrowed as that of every container."""
    given = bench.engine.facts().seccomp
    if not given:
        return None
    path = bench.work.path / _SECCOMP
    path.write_bytes(hardening.seccomp_profile(given))
    return path


def _check(
    engine: Engine, stored: StoredContainer, image: str, manager: PackageManager | None
) -> None:
    """Run what must still work in the new image; remove the image and raise if it does not."""
    program = Path(stored.command[0]).name if stored.command else ""
    preset = next((one for one in PRESETS.values() if one.program == program), None)
    checks = [] if preset is None else [preset.checks[0]]
    checks += [] if manager is None else [manager.probe]
    for words in checks:
        try:
            image_build.run_once(engine, image, words)
        except EngineError as error:
            with contextlib.suppress(EngineError):
                engine.call("rmi", "--force", image)
            raise ClaudeProxyError(
                f"after the update `{' '.join(words)}` fails: {error.what}; the container is as it "
                "was",
                where=stored.name,
                fix="update less: claude-proxy container update NAME -- COMMAND",
            ) from error


def _adopt(engine: Engine, statedir: Path, stored: StoredContainer, image: str, base: str) -> None:
    """Give the new image its name, keep the one before it, and note it for the next start."""
    tags = update_words.image_tags(stored.name)
    engine.call("tag", base, tags["previous"])
    engine.call("tag", image, tags["latest"])
    next_image.note(statedir, stored.name, tags["latest"])
