"""Updates of a container's image: the package managers, their rules and the steps of a build; pure.

Law kept: nothing is loosened for the container. An update is a build that begins with its image:
the step that runs the package manager is root, has the few capabilities which that needs, and a
network of its own. What is the image's own, user and command, stays as it is.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from claude_proxy.deferred.data_classes import dataclass

# What apt, dpkg, apk, dnf and rpm do as root: own, enter and replace the files of others, drop to
# a user of their own, and give programs capabilities of files.
_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
_WORK_PREFIX = "localhost/claude-proxy-work"


@dataclass(frozen=True, slots=True)
class PackageManager:
    """One package manager, how it updates everything, and the presets that it needs."""

    program: str
    probe: tuple[str, ...]  # succeeds in an image that has it
    script: str
    presets: tuple[str, ...]

    @property
    def command(self) -> tuple[str, ...]:
        """The command that updates all packages."""
        return ("/bin/sh", "-c", self.script)


MANAGERS = (
    PackageManager(
        "apt-get",
        ("apt-get", "--version"),
        "set -e; export DEBIAN_FRONTEND=noninteractive; apt-get update; "
        "apt-get -y -o Dpkg::Options::=--force-confold dist-upgrade; apt-get clean; "
        "rm -rf /var/lib/apt/lists/*",
        ("debian", "ubuntu"),
    ),
    PackageManager(
        "apk",
        ("apk", "--version"),
        "set -e; apk update; apk upgrade; rm -rf /var/cache/apk/*",
        ("alpine",),
    ),
    PackageManager(
        "dnf",
        ("dnf", "--version"),
        "set -e; dnf -y upgrade --refresh; dnf clean all",
        ("fedora",),
    ),
)
ALL_PRESETS = tuple(dict.fromkeys(name for one in MANAGERS for name in one.presets))


def containerfile(base: str, command: Sequence[str], user: str) -> str:
    """Return the Containerfile of an update: one step on the image `base`, by its id or name."""
    return "\n".join(
        (
            f"FROM {base}",
            "USER 0:0",
            # The form without a shell: the image may have none, and nothing is expanded.
            f"RUN {json.dumps(list(command))}",
            f"USER {user or '0:0'}",
            "",
        )
    )


def update_options(seccomp: Path | None) -> list[str]:
    """Return the options of a build by which its steps have no more than an update needs."""
    confined = [] if seccomp is None else ["--security-opt", f"seccomp={seccomp}"]
    return ["--cap-drop", "all", "--cap-add", ",".join(_CAPABILITIES), *confined]


def work_tag(work: str) -> str:
    """Return the name of the image that an update begins with, while it works."""
    return f"{_WORK_PREFIX}-{work}"


def image_tags(container: str) -> Mapping[str, str]:
    """Return the names of a container's own images: the newest, and the one before it."""
    repository = f"localhost/claude-proxy-container-{container.lower()}"
    return MappingProxyType(
        {"latest": f"{repository}:latest", "previous": f"{repository}:previous"}
    )
