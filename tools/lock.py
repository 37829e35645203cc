"""Writes poetry.lock from the package index that pip is configured for; run it by `make lock`.

`poetry lock` asks one index's JSON interface, which a mirror need not have, and then writes the
mirror's address into the lock file. So Poetry is shown pip's index as a source of the plain kind
in a copy of pyproject.toml, and the addresses are taken out again: what pins a package is its
hash, wherever it is fetched from.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

# Private names, as neither tool tells them otherwise; `make lock` pins the two major versions.
from pip._internal.models.index import PyPI
from poetry.packages.locker import Locker

ROOT = Path(__file__).resolve().parent.parent


def index_url() -> str:
    """Return the index that pip would ask first."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or str(PyPI.simple_url)


def lock() -> str:
    """Return the text of a lock file for pyproject.toml, hashes and no addresses."""
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    source = f'\n[[tool.poetry.source]]\nname = "index"\nurl = "{index_url()}"\n'
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        (copy / "pyproject.toml").write_text(pyproject + source, "utf-8")
        if (ROOT / "poetry.lock").exists():
            (copy / "poetry.lock").write_text((ROOT / "poetry.lock").read_text("utf-8"), "utf-8")
        subprocess.run(
            [sys.executable, "-m", "poetry", "lock", "-C", directory, *sys.argv[1:]],
            env=os.environ | {"POETRY_VIRTUALENVS_CREATE": "false"},  # resolving needs none
            check=True,
        )
        text = (copy / "poetry.lock").read_text("utf-8")
        text = re.sub(r"\n\[package\.source\]\n(?:\w+ = .*\n)+", "", text)
        (copy / "pyproject.toml").write_text(pyproject, "utf-8")
        fresh = Locker(copy / "poetry.lock", tomllib.loads(pyproject))._content_hash  # noqa: SLF001
    return re.sub(r'content-hash = ".*"', f'content-hash = "{fresh}"', text)


if __name__ == "__main__":
    (ROOT / "poetry.lock").write_text(lock(), "utf-8")
