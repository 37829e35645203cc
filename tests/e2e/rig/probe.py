"""Becomes a user, then tries one thing with the network; writes what came of it.

probe.py UID tcp|udp|serve ADDRESS PORT SECONDS
"""

import os
import socket
import sys


def main(uid: int, what: str, address: str, port: int, patience_s: float) -> str:
    """Return "ok" if it could be done, else what kept it from being done."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if what == "udp" else socket.SOCK_STREAM
    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    with socket.socket(family, kind) as sock:
        sock.settimeout(patience_s)
        try:
            if what == "serve":
                _serve(sock, address, port)
            else:
                sock.connect((address, port))
                sock.send(b"x")
        except OSError as error:
            return type(error).__name__
    return "ok"


def _serve(sock: socket.socket, address: str, port: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen()
    sys.stdout.write("listens\n")
    sys.stdout.flush()
    client, _ = sock.accept()
    with client:
        client.sendall(b"hello")
        client.recv(1)


if __name__ == "__main__":
    tried = main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
    sys.stdout.write(f"{tried}\n")
