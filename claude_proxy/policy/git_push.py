"""Git pushes over HTTP: the request for references that begins one, and what it leads to; pure.

A push asks for `/info/refs?service=git-receive-pack` before it sends anything (gitprotocol-http).
Git shows the reason of a denial only for that request, so it is judged together with the POST that
would follow.
"""

_SERVICE = "git-receive-pack"
_REFS = "/info/refs"
PUSH_QUERY = f"service={_SERVICE}"


def push_path(path: str, query: str) -> str | None:
    """Return the path to which a push will be sent after this request; None if it begins none."""
    if not query or not path.endswith(_REFS) or PUSH_QUERY not in query.split("&"):
        return None
    return f"{path.removesuffix(_REFS)}/{_SERVICE}"
