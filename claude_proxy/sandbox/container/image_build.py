"""Build of an image, with the engine itself in a closed network, and the check of the result.

Laws kept: fail closed; every exit is gated. The engine runs in a network namespace that has only
the build's own proxy. So what pulls the base, what an ADD fetches and what a RUN starts have the
same rules, and none has another way out. The name of an image moves to the new one after that has
passed its checks; until then the old one keeps it.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from claude_proxy.config import policy_files
from claude_proxy.config.settings import Settings
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.deferred.packaged_files import packaged_text
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container import debootstrap
from claude_proxy.sandbox.container.closed_network import ClosedNetwork, closed_network
from claude_proxy.sandbox.container.engine import Engine, EngineError
from claude_proxy.sandbox.container.plan import build_words, update_words
from claude_proxy.sandbox.container.plan.build_rules import Source, rules_text
from claude_proxy.sandbox.container.plan.containerfile import with_arguments
from claude_proxy.sandbox.container.plan.model import EngineKind
from claude_proxy.sandbox.container.work_directory import work_directory
from claude_proxy.sandbox.container.workbench import Reports, Workbench, workbench

PACKAGED = "container/images/Containerfile"
PRESETS = ("debian", "ubuntu", "npm", "docker")

_IMAGE_ID = "image-id"
_MARK = "mark"  # a path that only this build mounts
_CHECK_S = 180.0


@dataclass(frozen=True, slots=True)
class BuildRules:
    """What a build may read."""

    presets: Sequence[str] = PRESETS
    sources: Sequence[Source] = ()
    registry: str | None = None
    addresses: Sequence[str] = ()
    policy: str | None = None  # a policy to build under, instead of all these

    @property
    def text(self) -> str:
        """The allowlist of the build's network."""
        return rules_text(
            self.presets, self.sources, registry=self.registry, addresses=self.addresses
        )


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What is to be built, and from where it may be fetched."""

    tag: str
    file: Path | None = None  # a Containerfile of the user's; None: the packaged one
    arguments: Mapping[str, str] = MappingProxyType({})
    checks: Sequence[Sequence[str]] = ()
    rules: BuildRules = BuildRules()
    suite: str | None = None  # of the base that debootstrap makes first
    mirror: str | None = None


@dataclass(frozen=True, slots=True)
class BuildSteps:
    """What the engine is to do: a Containerfile, and what holds for its steps."""

    text: str
    context: Path
    arguments: Mapping[str, str] = MappingProxyType({})
    confinement: Sequence[str] = build_words.CONFINEMENT
    image_format: str = "oci"


@contextlib.contextmanager
def build_network(
    rules: BuildRules, settings: Settings, what: str, reports: Reports
) -> Iterator[ClosedNetwork]:
    """Start the network of a build: under its own rules, or those of the policy that is named."""
    text: str | None = rules.text
    if rules.policy is not None:
        settings, text = replace(settings, policy=rules.policy), None
        policy_files.policy_file_for(settings, where=f"--policy {rules.policy}")  # is there one?
    with closed_network(settings, text, what=what, say=reports.say) as network:
        yield network


def build(engine: Engine, request: BuildRequest, settings: Settings, reports: Reports) -> str:
    """Build an image, check it and give it its name; return its id.

    ClaudeProxyError if it fails: the log is kept then, and an older image of the name as well.
    """
    refuse_docker(engine)
    text = _read(request.file)

    def removed(work: Path) -> None:
        remove_leftovers(engine, work)

    with (
        work_directory(settings.statedir, "build", removed) as work,
        build_network(request.rules, settings, "build", reports) as network,
        workbench(engine, work, network, reports) as bench,
        _removing_leftovers(engine, work.path),
        ExitStack() as stack,
    ):
        arguments = dict(request.arguments)
        if request.suite is not None:
            reports.say(f"making a base image: {request.suite}")
            base = debootstrap.base_image(bench, request.suite, request.mirror)
            stack.callback(_remove_image, engine, base)
            arguments["BASE"] = base
        context = _context(request.file, work.path)
        image, code = run_build(bench, BuildSteps(text, context, arguments))
        if image is None:
            raise _failed(code, bench)
        _check(engine, request, image, reports)
        engine.call("tag", image, request.tag)
    return image


def refuse_docker(engine: Engine) -> None:
    """Raise ConfigError for an engine that builds elsewhere than where it is started."""
    if engine.kind is not EngineKind.PODMAN:
        raise ConfigError(
            "Docker's daemon builds on a network of its own, which claude-proxy cannot close",
            where=f"--engine {engine.kind}",
            fix="build with podman, and hand the image over: podman save TAG | docker load",
        )


def _read(file: Path | None) -> str:
    if file is None:
        return packaged_text("claude_proxy.sandbox", PACKAGED)
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"the Containerfile cannot be read: {(reason or '').lower()}",
            where=f"--file {file}",
            fix="name a readable Containerfile",
        ) from error


def _context(file: Path | None, work: Path) -> Path:
    """Return the directory that COPY reads: the Containerfile's, or an empty one."""
    if file is not None:
        return file.absolute().parent
    context = work / "context"
    context.mkdir()
    return context


def run_build(bench: Workbench, steps: BuildSteps) -> tuple[str | None, int]:
    """Have the engine build; return the image's id, None if that failed, and the exit code."""
    variables = build_words.variables(bench.network.environment())
    file = bench.work.path / "Containerfile"
    file.write_text(with_arguments(steps.text, tuple(variables.arguments)), "utf-8")
    found = bench.work.path / _IMAGE_ID
    (bench.work.path / _MARK).write_text(str(bench.network.trust), "utf-8")
    words = build_words.build_words(
        build_words.BuildFiles(bench.engine.program, file, steps.context, found),
        trust=bench.network.trust,
        arguments={**variables.arguments, **steps.arguments},
        confinement=steps.confinement,
        image_format=steps.image_format,
    )
    code = bench.run(words, variables.inherited)
    return (None, code) if code else (_image_id(found), 0)


def _image_id(file: Path) -> str:
    return file.read_text("ascii").strip().removeprefix("sha256:")


def _failed(code: int, bench: Workbench) -> ClaudeProxyError:
    fix = "correct the step that failed"
    if b"claude-proxy" in bench.tail.data or b"403" in bench.tail.data:
        fix += (
            "; what the proxy denied is in `claude-proxy log --denied`: allow it in a policy of "
            "its own, and build with --policy NAME"
        )
    return ClaudeProxyError(
        f"the build failed (exit code {code})", where=str(bench.work.log), fix=fix
    )


def _check(engine: Engine, request: BuildRequest, image: str, reports: Reports) -> None:
    """Run what must work in the image; remove the image and raise if something does not."""
    for words in request.checks:
        try:
            said = run_once(engine, image, words)
        except EngineError as error:
            _remove_image(engine, image)
            raise ClaudeProxyError(
                f"the image was built, but `{' '.join(words)}` fails in it: {error.what}",
                where=request.tag,
                fix="see that the Containerfile installs it for every user; an image that had "
                "this name before still has it",
            ) from error
        reports.say(f"checked: {' '.join(words)}: {said}")


def run_once(engine: Engine, image: str, words: Sequence[str], timeout_s: float = _CHECK_S) -> str:
    """Run a program in a container without network that is removed again; return its first line."""
    call = engine.begin(*build_words.check_words(image, words))
    try:
        said = call.end(timeout_s)
    except subprocess.SubprocessError as error:
        raise EngineError(str(error)) from error
    return said.decode("utf-8", "replace").strip().partition("\n")[0]


def config_of(engine: Engine, image: str) -> dict[str, Any]:
    """Return how an image is configured: its user, command and variables."""
    (found,) = json.loads(engine.call("image", "inspect", "--", image))
    return dict(found.get("Config") or {})


# --- what a kill has left


@contextlib.contextmanager
def _removing_leftovers(engine: Engine, work: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        remove_leftovers(engine, work)
        raise


def remove_leftovers(engine: Engine, work: Path) -> None:
    """Remove what a build or update that was stopped has left in the engine's storage.

    Its working containers are those that mount what only it has mounted; and the image that an
    update begins with has the name of the work.
    """
    with contextlib.suppress(EngineError, ValueError, OSError, LookupError):
        for container in _working_containers(engine, (work / _MARK).read_bytes()):
            engine.call("rm", "--force", container)
    with contextlib.suppress(EngineError):
        tag = update_words.work_tag(work.name)
        engine.call("untag", tag, tag)  # without the second it would take away every name
    with contextlib.suppress(EngineError, ValueError, OSError, LookupError):
        image = _image_id(work / _IMAGE_ID)
        (found,) = json.loads(engine.call("image", "inspect", "--", image))
        if not found["RepoTags"]:
            engine.call("rmi", image)


def _working_containers(engine: Engine, mark: bytes) -> Iterator[str]:
    """Yield the ids of the containers of a build, which podman's commands tell nothing about.

    buildah(1) keeps how each is made in a file beside its layers.
    """
    store = json.loads(engine.call("info", "--format", "json"))["store"]
    above = Path(store["graphRoot"], f"{store['graphDriverName']}-containers")
    for one in json.loads(engine.call("ps", "--all", "--external", "--format", "json")):
        state = above / str(one["Id"]) / "userdata" / "buildah.json"
        if mark and state.is_file() and mark in state.read_bytes():
            yield str(one["Id"])


def _remove_image(engine: Engine, image: str) -> None:
    with contextlib.suppress(EngineError):  # its layers may be those of another one
        engine.call("rmi", image)
