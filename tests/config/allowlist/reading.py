"""Reads allowlists from texts, for the tests of all that reads them."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.loader import Library
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.wire.authority import Authority


def load(text: str, **more: str) -> Policy:
    return loader.load(text, name="a.yaml", library=Library(lambda name: more[name]))


def load_entry(entry: str) -> Policy:
    return load(f"allow:\n  - {entry}\n")


def refused(text: str, **more: str) -> list[ConfigError]:
    """Return the problems in `text`, of which there must be some."""
    with pytest.raises(ConfigErrors) as caught:
        load(text, **more)
    return list(caught.value.problems)


def told(text: str, **more: str) -> tuple[str, str, str]:
    """Return what, where and fix of the only problem in `text`."""
    (problem,) = refused(text, **more)
    return problem.what, problem.where or "", problem.fix or ""


def asks(url: str, method: str = "GET") -> Request:
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    target = Authority.parse(authority, default_port=443 if scheme == "https" else 80)
    return Request(Scheme(scheme), target, target, method, slash + path or "/")
