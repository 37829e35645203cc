"""Model of the files that `container init` writes: what was asked for, and what it came to; pure.

Law kept: nothing that a user gives is written into a file before it has been checked here, so no
value can end a line, a quoted word or a mapping and begin another.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from claude_proxy.errors import ConfigError

# https://github.com/opencontainers/distribution-spec: domain, path, tag and digest.
_IMAGE = re.compile(
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9]+:[0-9a-f]{32,128})?",
    re.ASCII,
)
_MOST_OF_AN_IMAGE = 512
# RFC 1123, section 2.1, as Kubernetes and compose take it; room for a suffix.
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
# Engines split at colons and commas, and have no way to quote them.
_PATH = re.compile(r"[\w/.+@ ~=-]+")
_UNNAMED = "agent"


class FileKind(StrEnum):
    """The program that a set of files is for."""

    COMPOSE = "compose"
    DEVCONTAINER = "devcontainer"
    QUADLET = "quadlet"
    KUBERNETES = "kubernetes"
    GITHUB_ACTION = "github-action"


class PodLayout(StrEnum):
    """How many pods Kubernetes gets: the proxy in one of its own, or beside the agent."""

    TWO = "two"
    ONE = "one"


class EngineChoice(StrEnum):
    """The engine that will read a file; each numbers users in its own way."""

    PODMAN = "podman"  # without root
    PODMAN_ROOT = "podman-root"
    DOCKER = "docker"


@dataclass(frozen=True, slots=True)
class FileRequest:
    """What the user asked for; ConfigError if it cannot be written into a file."""

    kind: FileKind
    name: str
    image: str | None = None  # of the agent; None: the kind's own default
    command: tuple[str, ...] = ()  # what is typed to write these files again
    pods: PodLayout = PodLayout.TWO
    engine: EngineChoice = EngineChoice.PODMAN
    selinux: bool = False  # this machine enforces it, so what is mounted needs a label
    directory: str = "/nonexistent"  # of the project, absolute
    guarded: tuple[str, ...] = ()  # what is in it that tools of the host obey

    def __post_init__(self) -> None:
        """Check what was given."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f'"{self.name}" cannot be the name of a container',
                where="--name",
                fix="use up to 40 small letters, digits and hyphens, and begin with a letter",
            )
        if self.image is not None:
            check_image(self.image)
        written = (self.directory,) if self.kind is FileKind.QUADLET else ()
        for path in (*written, *self.guarded):
            if not _PATH.fullmatch(path):
                raise ConfigError(
                    "the path of the project has a character that these files cannot contain",
                    where=_shown(path),
                    fix="use a directory whose path has no colon, comma, quote or dollar sign",
                )


def check_image(image: str) -> None:
    """Raise ConfigError unless `image` is the reference of an image."""
    if len(image) > _MOST_OF_AN_IMAGE or not _IMAGE.fullmatch(image):
        raise ConfigError(
            f'"{_shown(image)}" is not the name of an image',
            where="--image",
            fix="write it like docker.io/library/node:22-slim; capital letters are for tags only",
        )


def _shown(text: str) -> str:
    return text[:80].encode("unicode_escape").decode("ascii")


def name_of_directory(directory: str) -> str:
    """Return the name of a container after the directory of a project."""
    found = re.sub(r"[^a-z0-9]+", "-", directory.lower()).lstrip("0123456789-")[:40].rstrip("-")
    return found or _UNNAMED


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """One file, as text."""

    path: PurePosixPath  # below the directory of the project
    text: str
    own: bool = False  # its owner edits it: written where there is none, and left alone after that


@dataclass(frozen=True, slots=True)
class FileSet:
    """The files of one kind, and what to do with them."""

    files: tuple[RenderedFile, ...]
    steps: tuple[str, ...]


def head_of(request: FileRequest, comment: str = "") -> str:
    """Return the first lines of a file, as comments; the one that writes it comes first."""
    words = " ".join(("claude-proxy", "container", "init", *request.command))
    lines = [f"Written by `{words}`.", *comment.splitlines()]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
