"""Rendering of the files of `container init`: one module for each kind; pure."""

from collections.abc import Callable, Mapping

from claude_proxy.sandbox.container.files import (
    compose,
    devcontainer,
    github_action,
    kubernetes,
    quadlet,
)
from claude_proxy.sandbox.container.files.model import FileKind, FileRequest, FileSet

KINDS: Mapping[FileKind, Callable[[FileRequest], FileSet]] = {
    FileKind.COMPOSE: compose.render,
    FileKind.DEVCONTAINER: devcontainer.render,
    FileKind.QUADLET: quadlet.render,
    FileKind.KUBERNETES: kubernetes.render,
    FileKind.GITHUB_ACTION: github_action.render,
}


def render(request: FileRequest) -> FileSet:
    """Return the files that a request comes to."""
    return KINDS[request.kind](request)
