"""Builds one small package for pip and one for npm, and serves their indexes."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from urllib.parse import unquote, urlsplit

from .origin import Exchange, Site, Talk

PYTHON_PACKAGE = "greeting"
NODE_PACKAGE = "@rig/greeting"
_VERSION = "1.0.0"


def files(pages: dict[str, tuple[str, bytes]]) -> Site:
    """Return a site that serves those pages: path to content type and body."""

    def serve(exchange: Exchange, talk: Talk) -> None:
        talk.drain(exchange)
        # npm asks for a scoped name as "@scope%2fname".
        page = pages.get(unquote(urlsplit(exchange.target).path))
        if page is None or exchange.method != "GET":
            talk.answer("404 Not Found")
        else:
            talk.answer("200 OK", page[1], f"Content-Type: {page[0]}")

    return serve


def python_index() -> Site:
    """Return a package index with one wheel."""
    name = f"{PYTHON_PACKAGE}-{_VERSION}-py3-none-any.whl"
    wheel = _wheel()
    digest = hashlib.sha256(wheel).hexdigest()
    listing = f'<!doctype html><a href="/files/{name}#sha256={digest}">{name}</a>'
    return files(
        {
            f"/simple/{PYTHON_PACKAGE}/": ("text/html", listing.encode()),
            f"/files/{name}": ("application/zip", wheel),
        }
    )


def node_index(host: str) -> Site:
    """Return a registry with one scoped package."""
    tarball = _tarball()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    path = f"/{NODE_PACKAGE}/-/greeting-{_VERSION}.tgz"
    version = {
        "name": NODE_PACKAGE,
        "version": _VERSION,
        "dist": {"tarball": f"https://{host}{path}", "integrity": integrity},
    }
    document = {
        "name": NODE_PACKAGE,
        "dist-tags": {"latest": _VERSION},
        "versions": {_VERSION: version},
    }
    return files(
        {
            f"/{NODE_PACKAGE}": ("application/json", json.dumps(document).encode()),
            path: ("application/octet-stream", tarball),
        }
    )


def _wheel() -> bytes:
    info = f"{PYTHON_PACKAGE}-{_VERSION}.dist-info"
    entries = {
        f"{PYTHON_PACKAGE}.py": "def greet():\n    return 'hello from the index'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PYTHON_PACKAGE}\nVersion: {_VERSION}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*entries, f"{info}/RECORD"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {**entries, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def _tarball() -> bytes:
    manifest = {"name": NODE_PACKAGE, "version": _VERSION, "main": "index.js"}
    entries = {
        "package/package.json": json.dumps(manifest),
        "package/index.js": "module.exports = () => 'hello from the registry';\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()
