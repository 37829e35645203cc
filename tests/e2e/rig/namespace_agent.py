"""Hands out sockets that were born in the network namespace this program runs in.

A socket belongs to the namespace of the process that made it, whoever holds it later. So
the tests stay where they are and still listen, dial and sniff inside the namespace.
"""

import json
import socket
import sys


def main() -> None:
    """Answer each request on the inherited channel with one socket, until it is closed."""
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        channel.send(b"ready")
        while request := channel.recv(4096):
            family, kind, protocol = json.loads(request)
            with socket.socket(family, kind, protocol) as born:
                socket.send_fds(channel, [b"born"], [born.fileno()])


if __name__ == "__main__":
    main()
