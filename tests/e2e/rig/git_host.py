"""Serves git over HTTP with git's own CGI program, as a forge does."""

import os
import subprocess
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlsplit

from .origin import Exchange, Site, Talk


def git_host(root: Path, *, login: str | None = None) -> Site:
    """Return a site that serves the bare repositories under `root`, to push to as well.

    With a `login` ("user:password") to nobody else.
    """
    wanted = None if login is None else f"Basic {b64encode(login.encode()).decode()}"

    def serve(exchange: Exchange, talk: Talk) -> None:
        if (exchange.header("Expect") or "").lower() == "100-continue":
            talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        talk.drain(exchange)
        if wanted is not None and exchange.header("Authorization") != wanted:
            talk.answer("401 Unauthorized", b"", 'WWW-Authenticate: Basic realm="forge"')
            return
        url = urlsplit(exchange.target)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REMOTE_USER": "somebody",
            "REQUEST_METHOD": exchange.method,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": exchange.header("Content-Type") or "",
            "CONTENT_LENGTH": str(exchange.body_bytes),
            "HTTP_CONTENT_ENCODING": exchange.header("Content-Encoding") or "",
            "HTTP_GIT_PROTOCOL": exchange.header("Git-Protocol") or "",
        }
        ran = subprocess.run(
            ["git", "http-backend"],
            input=exchange.body,
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        head, _, body = ran.stdout.partition(b"\r\n\r\n")
        fields = head.decode().split("\r\n")
        status = "200 OK"
        for line in list(fields):
            if line.lower().startswith("status:"):
                status = line.partition(":")[2].strip()
                fields.remove(line)
        talk.answer(status, body, *fields)

    return serve
