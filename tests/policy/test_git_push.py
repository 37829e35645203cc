"""A push is recognized by its first request, and only by that."""

import pytest

from claude_proxy.policy.git_push import push_path

QUERY = "service=git-receive-pack"


@pytest.mark.parametrize(
    ("path", "query", "leads_to"),
    [
        ("/o/r.git/info/refs", QUERY, "/o/r.git/git-receive-pack"),
        ("/o/r/info/refs", f"a=b&{QUERY}", "/o/r/git-receive-pack"),
        ("/info/refs", QUERY, "/git-receive-pack"),
        ("/o/r.git/info/refs", "service=git-upload-pack", None),
        ("/o/r.git/info/refs", "", None),
        ("/o/r.git/info/refs/", QUERY, None),
        ("/o/r.git/info/lfs", QUERY, None),
        ("/o/r.git/info/refs", f"x{QUERY}", None),
    ],
)
def test_a_push_begins_with_the_references(path: str, query: str, leads_to: str | None) -> None:
    assert push_path(path, query) == leads_to
