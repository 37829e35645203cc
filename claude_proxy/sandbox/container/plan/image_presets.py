"""Images of coding agents: what is in each, how it is named and how it is checked; pure.

A preset of an image has the name of the profile that its container uses.
"""

from collections.abc import Mapping
from types import MappingProxyType

from claude_proxy.deferred.data_classes import dataclass

REPOSITORY = "localhost/claude-proxy"

_QUIET: Mapping[str, str] = MappingProxyType(
    {
        # docs of Claude Code, "env-vars" and "data-usage": any value that is not empty counts.
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_FEEDBACK_COMMAND": "1",
        # The image is read-only for it: `container update` and `build` bring new versions.
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_UPDATES": "1",
        "DO_NOT_TRACK": "1",
    }
)


@dataclass(frozen=True, slots=True)
class ImagePreset:
    """One kind of image."""

    name: str
    program: str | None  # the agent's command; None: there is no agent
    npm_packages: tuple[str, ...] = ()
    needs_node: bool = False
    environment: Mapping[str, str] = MappingProxyType({})  # of its containers

    @property
    def tag(self) -> str:
        """The name of the image that `container build` makes."""
        return f"{REPOSITORY}-{self.name}:latest"

    @property
    def checks(self) -> tuple[tuple[str, ...], ...]:
        """The commands that must succeed in the image."""
        own = () if self.program is None else ((self.program, "--version"),)
        return (*own, ("git", "--version"))

    @property
    def command(self) -> tuple[str, ...]:
        """What a container runs if no command is given."""
        return ("bash",) if self.program is None else (self.program,)


PRESETS: Mapping[str, ImagePreset] = MappingProxyType(
    {
        one.name: one
        for one in (
            ImagePreset(
                "claude",
                "claude",
                ("@anthropic-ai/claude-code",),
                environment=_QUIET,
            ),
            ImagePreset(
                "codex",
                "codex",
                ("@openai/codex",),
                needs_node=True,
                environment={"DO_NOT_TRACK": "1"},
            ),
            ImagePreset(
                "gemini",
                "gemini",
                ("@google/gemini-cli",),
                needs_node=True,
                environment={"DO_NOT_TRACK": "1", "GEMINI_TELEMETRY_ENABLED": "false"},
            ),
            ImagePreset("shell", None),
        )
    }
)


def build_arguments(
    preset: ImagePreset,
    *,
    base: str | None = None,
    mirror: str | None = None,
    npm_registry: str | None = None,
) -> dict[str, str]:
    """Return the arguments of the Containerfile for a preset."""
    found = {
        "BASE": base,
        "APT_MIRROR": mirror,
        "NPM_REGISTRY": npm_registry,
        "NPM_PACKAGES": " ".join(preset.npm_packages),
        "NEEDS_NODE": "1" if preset.needs_node else "",
    }
    return {name: value for name, value in found.items() if value}
