"""`claude-proxy container build`: an agent's image, or a Containerfile's, through the proxy."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import options
from claude_proxy.cli.container_network import network_options, network_settings, until_interrupted
from claude_proxy.cli.run import say
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container import image_build
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.image_build import BuildRequest, BuildRules
from claude_proxy.sandbox.container.plan.build_rules import Source, registry_of
from claude_proxy.sandbox.container.plan.debootstrap_words import DEFAULT_SUITE
from claude_proxy.sandbox.container.plan.image_presets import (
    PRESETS,
    ImagePreset,
    build_arguments,
)
from claude_proxy.sandbox.container.plan.model import EngineKind
from claude_proxy.sandbox.container.workbench import Reports

EPILOG = """\b
Examples:
  claude-proxy container build                        Claude Code on Debian
  claude-proxy container build --preset codex --tag my-codex
  claude-proxy container build --from-debootstrap     without an image registry
  claude-proxy container build --base ubuntu:24.04 --mirror http://mirror.example.com/ubuntu
  claude-proxy container build --file Containerfile --tag my-image --policy my-build

The build's only network is a proxy with rules of its own: the archives of Debian and Ubuntu, npm,
Docker Hub, and the servers that --base, --mirror and --npm-registry name; or those of --policy.
"""


@click.command(cls=options.TopicalCommand, name="build", epilog=EPILOG)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="The agent in the image; `shell` has none.  [default: claude, without --file]",
)
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Build this Containerfile; its directory is the context.",
)
@click.option(
    "--tag",
    metavar="NAME",
    help="Name of the image.  [default: localhost/claude-proxy-PRESET:latest]",
)
@click.option(
    "--base",
    metavar="IMAGE",
    help="Image to begin with: a Debian or Ubuntu. The argument BASE of a Containerfile.  "
    "[default: debian:stable-slim]",
)
@click.option(
    "--from-debootstrap",
    "suite",
    is_flag=False,
    flag_value=DEFAULT_SUITE,
    metavar="[SUITE]",
    help="Make the base with debootstrap or mmdebstrap, without an image registry.",
)
@click.option(
    "--mirror",
    metavar="URL",
    help="Archive that apt uses, then and in the image. The argument APT_MIRROR.",
)
@click.option(
    "--npm-registry", metavar="URL", help="Registry that npm uses. The argument NPM_REGISTRY."
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="CIDR",
    help="Private address that --base, --mirror and --npm-registry may have (repeatable).",
)
@click.option(
    "--build-arg",
    "given_arguments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Argument of the Containerfile (repeatable).",
)
@click.option(
    "--policy",
    "policy_name",
    metavar="NAME",
    help="Build under this policy, instead of the build's own rules.",
)
@click.option(
    "--engine",
    type=click.Choice([one.value for one in EngineKind]),
    help="Engine that builds.  [default: the first one that is installed]",
)
@network_options
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Build the image of an agent through the proxy, and check it."""
    return until_interrupted(lambda: _build(context, given))


def _build(context: click.Context, given: dict[str, Any]) -> int:
    settings = network_settings(context, given)
    engine = Engine.find(EngineKind(given["engine"]) if given["engine"] else None, os.environ)
    request = request_of(given)
    image_build.build(engine, request, settings, Reports(say, show))
    say(f"built: {request.tag}")
    if given["file"] is None:
        say(f"to use it: claude-proxy container run --preset {preset_of(given).name}")
    else:
        say(f"to use it: claude-proxy container run --image {request.tag} -- COMMAND")
    return 0


def preset_of(given: dict[str, Any]) -> ImagePreset:
    """Return the preset that is asked for, or Claude Code's."""
    return PRESETS[given["preset"] or "claude"]


def request_of(given: dict[str, Any]) -> BuildRequest:
    """Return what is to be built; ConfigError where the options contradict each other."""
    preset, base = preset_of(given), given["base"]
    if given["suite"] is not None and base is not None:
        raise click.UsageError("--from-debootstrap makes the base: drop --base")
    if given["file"] is not None and not (given["tag"] or given["preset"]):
        raise click.UsageError("name the image: add --tag NAME")
    _refuse_options("--base", base)
    _refuse_options("--tag", given["tag"])
    sources = [
        Source.parse(given[name], option)
        for name, option in (("mirror", "--mirror"), ("npm_registry", "--npm-registry"))
        if given[name] is not None
    ]
    registry = registry_of(base) if base is not None else None
    if given["addresses"] and not sources and registry is None:
        raise click.UsageError(
            "--address is for a server that is named: add --mirror, --npm-registry or --base"
        )
    arguments = build_arguments(
        preset, base=base, mirror=given["mirror"], npm_registry=given["npm_registry"]
    )
    if given["file"] is not None:
        arguments = {name: arguments[name] for name in _FOR_ANY if name in arguments}
    has_checks = given["file"] is None or given["preset"] is not None
    return BuildRequest(
        tag=given["tag"] or preset.tag,
        file=given["file"],
        arguments={**arguments, **_arguments(given["given_arguments"])},
        checks=preset.checks if has_checks else (),
        rules=BuildRules(
            sources=tuple(sources),
            registry=registry,
            addresses=given["addresses"],
            policy=given["policy_name"],
        ),
        suite=given["suite"],
        mirror=given["mirror"],
    )


# Arguments that a Containerfile of the user's may have, too.
_FOR_ANY = ("BASE", "APT_MIRROR", "NPM_REGISTRY")


def _refuse_options(option: str, value: str | None) -> None:
    if value is not None and (not value or value.startswith("-") or not value.isprintable()):
        raise ConfigError(
            f"{value!r} is not the name of an image",
            where=option,
            fix="write it like debian:stable-slim or registry.example.com/name:tag",
        )


def _arguments(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(
                f"{text!r} is not an argument", where="--build-arg", fix="write NAME=VALUE"
            )
        found[name] = value
    return found


def show(piece: bytes) -> None:
    """Print what a build prints, beside our own lines."""
    sys.stderr.buffer.write(piece)
    sys.stderr.buffer.flush()
