"""The real Claude Code, past its first questions, in a home and a project of its own."""

import base64
import json
import random
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from .proxy import Workplace

PROMPT = "shift+tab to cycle"  # what its terminal shows when it waits for a line


@dataclass(frozen=True)
class ClaudeCode:
    """One way to start it: a program, a place, and what stands in its environment."""

    program: str
    place: Workplace
    environment: Mapping[str, str]

    @classmethod
    def settled(
        cls, program: str, place: Workplace, environment: Mapping[str, str], *approved: str
    ) -> Self:
        """Answer its first questions; it may use the keys in `approved` without asking."""
        found = cls(program, place, environment)
        found.project.mkdir(exist_ok=True)
        settings = {
            "hasCompletedOnboarding": True,
            "customApiKeyResponses": {"approved": [key[-20:] for key in approved], "rejected": []},
            "theme": "dark",
            "projects": {str(found.project): {"hasTrustDialogAccepted": True}},
        }
        (place.home / ".claude.json").write_text(json.dumps(settings), encoding="utf-8")
        return found

    @property
    def project(self) -> Path:
        """The directory that it works in."""
        return self.place.directory / "project"

    def with_variables(self, **variables: str) -> Self:
        """Return the same with more in its environment."""
        return replace(self, environment={**self.environment, **variables})

    def prints(self, *words: str, given: bytes | None = None) -> "subprocess.CompletedProcess[str]":
        """Have it answer one prompt, and end."""
        return self.place.run(
            self.program,
            "-p",
            *words,
            environment=self.environment,
            cwd=self.project,
            given=given,
        )

    def prints_with_document(self, size: int) -> "subprocess.CompletedProcess[str]":
        """Have it answer a prompt with a document of so many bytes; it prints events."""
        # A document's tokens are counted by nobody beforehand.
        data = base64.b64encode(random.Random(1).randbytes(size)).decode()
        source = {"type": "base64", "media_type": "application/pdf", "data": data}
        content = [{"type": "text", "text": "read this"}, {"type": "document", "source": source}]
        line = json.dumps({"type": "user", "message": {"role": "user", "content": content}})
        words = ("--input-format", "stream-json", "--output-format", "stream-json", "--verbose")
        return self.prints(*words, given=f"{line}\n".encode())


def written_below(directory: Path) -> Iterator[Path]:
    """Yield every file below a directory."""
    return (path for path in directory.rglob("*") if path.is_file())
