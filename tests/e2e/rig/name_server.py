"""Answers DNS from a table and counts every question."""

import socket
import struct
import threading
from collections.abc import Sequence
from ipaddress import ip_address

from .namespaces import NAME_SERVER, Namespace

_A, _AAAA = 1, 28
_ANSWER_OK, _ANSWER_NO_NAME = 0x8180, 0x8183


class NameServer:
    """The one resolver that the host knows."""

    def __init__(self, internet: Namespace) -> None:
        self.asked: list[str] = []
        self._zone: dict[str, list[tuple[str, ...]]] = {}
        self._muted: set[str] = set()
        self._socket = internet.new_socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((NAME_SERVER, 53))
        threading.Thread(target=self._serve, name="name server", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._socket.close()

    def answer(self, name: str, *answers: Sequence[str]) -> None:
        """Answer questions for `name` by each set of addresses in turn, then by the last."""
        self._zone[name.lower()] = [tuple(answer) for answer in answers]

    def mute(self, name: str) -> None:
        """Leave questions for `name` without any answer."""
        self._muted.add(name.lower())

    def _serve(self) -> None:
        while True:
            try:
                question, sender = self._socket.recvfrom(4096)
                if (answer := self._answer_to(question)) is not None:
                    self._socket.sendto(answer, sender)
            except OSError:
                return  # it has been closed

    def _answer_to(self, question: bytes) -> bytes | None:
        labels, position = [], 12
        while length := question[position]:
            labels.append(question[position + 1 : position + 1 + length].decode("latin-1"))
            position += 1 + length
        end = position + 5
        name = ".".join(labels).lower()
        (kind,) = struct.unpack("!H", question[position + 1 : position + 3])
        self.asked.append(name)
        if name in self._muted:
            return None
        answers = self._zone.get(name)
        addresses = [ip_address(text) for text in (answers[0] if answers else ())]
        # One turn is the pair of questions, A and AAAA, that a resolver asks at once.
        if answers and len(answers) > 1 and kind == _A:
            answers.pop(0)
        version = {_A: 4, _AAAA: 6}.get(kind)
        records = [address.packed for address in addresses if address.version == version]
        flags = _ANSWER_NO_NAME if answers is None else _ANSWER_OK
        head = question[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
        return (
            head
            + question[12:end]
            + b"".join(
                struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(record)) + record
                for record in records
            )
        )
