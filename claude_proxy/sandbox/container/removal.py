"""Removal of what is kept of a container that is gone: its record, home, images, holder."""

import contextlib
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import next_image, store
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan import update_words
from claude_proxy.sandbox.container.plan.model import EngineKind, Way
from claude_proxy.sandbox.container.plan.way_plans import holder_name
from claude_proxy.sandbox.container.store import StoredContainer


def forget(statedir: Path, stored: StoredContainer, engine: Engine) -> None:
    """Remove what is kept of a container that is gone, and its home."""
    with contextlib.suppress(ClaudeProxyError):
        if stored.volume:
            engine.remove_volume(stored.volume)
    if _has_holder(stored):
        with contextlib.suppress(ClaudeProxyError):
            engine.remove(holder_name(stored.name), force=True)
    _remove_images(statedir, stored, engine)
    store.remove(statedir, stored.name)


def _remove_images(statedir: Path, stored: StoredContainer, engine: Engine) -> None:
    """Take away the names of the images that updates have made; what nobody names goes."""
    tags = update_words.image_tags(stored.name)
    with contextlib.suppress(ClaudeProxyError):
        if tags["latest"] not in {stored.image, next_image.of(statedir, stored.name)}:
            return
    for tag in tags.values():
        with contextlib.suppress(ClaudeProxyError):
            engine.call("rmi", tag)


def remove_container(engine: Engine, stored: StoredContainer) -> None:
    """Remove a container itself, after the one that has joined it to make sockets there again."""
    if _has_holder(stored):
        with contextlib.suppress(ClaudeProxyError):
            engine.remove(holder_name(stored.name, again=True), force=True)
    engine.remove(stored.name, force=True)


def _has_holder(stored: StoredContainer) -> bool:
    return (stored.way, stored.engine) != (Way.ENTER, EngineKind.PODMAN)
