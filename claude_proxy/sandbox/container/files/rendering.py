"""Rendering of the files of `container init`: one module for each kind; pure."""

from collections.abc import Callable, Mapping

from claude_proxy.sandbox.container.files import github_action, kubernetes
from claude_proxy.sandbox.container.files.model import FileKind, FileRequest, FileSet

KINDS: Mapping[FileKind, Callable[[FileRequest], FileSet]] = {
    FileKind.KUBERNETES: kubernetes.render,
    FileKind.GITHUB_ACTION: github_action.render,
}


def render(request: FileRequest) -> FileSet:
    """Return the files that a request comes to."""
    return KINDS[request.kind](request)
