"""Command lines of a build and of the checks of its image; pure.

Law kept: fail closed. `--network host` means the namespace that the engine itself is in, which is
closed; nothing here names another one.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.plan.environment import INSIDE

# Containerfile(5): build arguments that every stage has without declaring them, and that leave no
# trace in the image's history.
_PREDEFINED = frozenset({"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"})
# Capabilities that no package manager needs, of those that an engine gives a build.
_DROPPED = ("CAP_NET_RAW", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_NET_BIND_SERVICE")
CONFINEMENT = ("--cap-drop", ",".join(_DROPPED))


@dataclass(frozen=True, slots=True)
class BuildVariables:
    """The variables of a build."""

    inherited: Mapping[str, str]  # the engine passes them on itself
    arguments: Mapping[str, str]


def variables(environment: Mapping[str, str]) -> BuildVariables:
    """Return how the variables of a program that uses the proxy reach the steps of a build."""
    inherited = {name: value for name, value in environment.items() if name.lower() in _PREDEFINED}
    arguments = {name: value for name, value in environment.items() if name not in inherited}
    return BuildVariables(inherited, arguments)


@dataclass(frozen=True, slots=True)
class BuildFiles:
    """The engine, and the files that it reads and writes."""

    program: Path
    file: Path
    context: Path
    image_id: Path


def build_words(
    files: BuildFiles,
    *,
    trust: Path,
    arguments: Mapping[str, str],
    confinement: Sequence[str] = CONFINEMENT,
    image_format: str = "oci",
) -> list[str]:
    """Return the command line that builds an image without a name."""
    return [
        *(str(files.program), "build", "--network", "host", "--dns", "none"),
        *("--pull=missing", "--layers=false", "--format", image_format),
        *confinement,
        *("--volume", f"{trust}:{INSIDE}:ro"),
        *_arguments(arguments),
        *("--iidfile", str(files.image_id), "--file", str(files.file), str(files.context)),
    ]


def _arguments(arguments: Mapping[str, str]) -> Iterator[str]:
    for name, value in arguments.items():
        yield from ("--build-arg", f"{name}={value}")


def check_words(image: str, words: Sequence[str]) -> list[str]:
    """Return the words that run a program once in a container that has nothing."""
    program, *arguments = words
    return [
        *("run", "--rm", "--pull", "never", "--network", "none", "--read-only"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--tmpfs", "/tmp:rw,nosuid,nodev,mode=1777", "--env", "HOME=/tmp"),  # noqa: S108
        *("--workdir", "/", "--entrypoint", program, image, *arguments),
    ]
