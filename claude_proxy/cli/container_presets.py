"""Presets of `container run`: which image, profile and command an agent's container has.

Fail closed: an image that is not there is not built without being asked for.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import options
from claude_proxy.cli.run_choices import RunOptions
from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.container.engine import NoImageError
from claude_proxy.sandbox.container.plan import wrappers
from claude_proxy.sandbox.container.plan.image_presets import PRESETS, REPOSITORY, ImagePreset
from claude_proxy.sandbox.run_spec import RunSpec

NAMES = ("preset", "build", "yolo")

# Options of a build that a container's own hold for as well.
_HANDED_ON = ("confdir", "statedir", "upstream_ca", "upstream_proxy", "engine", "preset")


def preset_options(function: Any) -> Any:
    """Add the options that choose an agent's image."""
    function = click.option(
        "--yolo",
        is_flag=True,
        help="Let the agent work without asking; NAME-original still asks.",
    )(function)
    function = click.option(
        "--build",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Build this Containerfile first, through the proxy, and use its image.",
    )(function)
    return click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        help="The image, profile and command of an agent; see `container build`.",
    )(function)


def image_of(given: Mapping[str, Any]) -> str:
    """Return the image that the options name; UsageError if they name none, or two."""
    image, file = given["image"], given["build"]
    if image and file is not None:
        raise click.UsageError("--build makes the image: drop --image")
    if image:
        return str(image)
    if file is not None:
        mark = hashlib.sha256(str(file.absolute()).encode("utf-8", "surrogateescape")).hexdigest()
        return f"{REPOSITORY}-build-{mark[:12]}:latest"
    if given["preset"]:
        return PRESETS[given["preset"]].tag
    raise click.UsageError("no image: name one with --image, --preset or --build")


def build_first(context: click.Context, given: Mapping[str, Any]) -> None:
    """Build the image of --build; ClaudeProxyError if that fails."""
    if given["build"] is None:
        return
    words = [f"--file={given['build'].absolute()}", f"--tag={image_of(given)}"]
    words += [
        f"--{name.replace('_', '-')}={given[name]}"
        for name in _HANDED_ON
        if given.get(name) is not None and options.is_typed(context, name)
    ]
    from claude_proxy.cli.container_build import command  # noqa: PLC0415 - few containers build

    with command.make_context("build", words, parent=context) as inner:
        command.invoke(inner)


@contextlib.contextmanager
def naming_the_build(given: Mapping[str, Any]) -> Iterator[None]:
    """Say, where the image of a preset is missing, which command builds it."""
    try:
        yield
    except NoImageError as error:
        if given["image"] or not given["preset"]:
            raise
        name = given["preset"]
        raise NoImageError(
            f"the image of the preset {name} is not on this machine",
            where=f"--preset {name}",
            fix=f"build it, which takes some minutes: claude-proxy container build --preset {name}"
            "; without an image registry add --from-debootstrap",
        ) from error


def chosen(given: Mapping[str, Any], run_options: RunOptions) -> RunOptions:
    """Return the options of the run with what the preset says of its profile and command."""
    preset = _preset(given)
    if preset is None:
        return run_options
    return replace(run_options, profile=preset.name, command=run_options.command or preset.command)


def settled(given: Mapping[str, Any], spec: RunSpec) -> RunSpec:
    """Return the run with the variables of an agent in a container, which sends no telemetry."""
    profile = spec.sandbox.profile
    preset = PRESETS.get(profile.name)
    if given["yolo"]:
        wrappers.wrappers(profile)  # whether there are any
    if preset is None:
        return spec
    # What the profile sets takes precedence, and what the user has exported is passed on.
    set_env = tuple({**preset.environment, **dict(profile.set_env)}.items())
    return replace(spec, sandbox=replace(spec.sandbox, profile=replace(profile, set_env=set_env)))


def _preset(given: Mapping[str, Any]) -> ImagePreset | None:
    return PRESETS[given["preset"]] if given["preset"] else None
