"""The least of a MongoDB: it is the only member of a replica set, and answers `ping` and `count`.

Run by an interpreter that has pymongo, as no MongoDB server can be installed.
"""

import socketserver
import struct
import sys
from typing import Any

import bson  # type: ignore[import-not-found, import-untyped, unused-ignore] # pymongo's

_HEADER = struct.Struct("<iiii")
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013


class _Member(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while head := self.rfile.read(_HEADER.size):
            length, number, _, code = _HEADER.unpack(head)
            body = self.rfile.read(length - _HEADER.size)
            if code == _OP_QUERY:  # the first question of every client
                command = bson.decode(body[body.index(b"\0", 4) + 1 + 8 :])
                said = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(self._answer(command))
            else:
                said = struct.pack("<i", 0) + b"\0" + bson.encode(self._answer(_command_in(body)))
            answered = _OP_REPLY if code == _OP_QUERY else _OP_MSG
            self.wfile.write(_HEADER.pack(_HEADER.size + len(said), 0, number, answered) + said)

    @staticmethod
    def _answer(command: dict[str, Any]) -> dict[str, Any]:
        own = f"{sys.argv[1]}:{sys.argv[2]}"
        facts = {"ismaster": True, "isWritablePrimary": True, "setName": "only", "hosts": [own]}
        limits = {"maxBsonObjectSize": 2**24, "maxMessageSizeBytes": 48_000_000}
        versions = {"maxWriteBatchSize": 100_000, "minWireVersion": 0, "maxWireVersion": 21}
        known = {"count": {"n": 42}, "ping": {}}
        answer = known.get(next(iter(command)), {**facts, "me": own, "primary": own})
        return {**answer, **limits, **versions, "ok": 1.0}


def _command_in(body: bytes) -> dict[str, Any]:
    size = struct.unpack_from("<i", body, 5)[0]  # after the flags and the kind of the section
    return dict(bson.decode(body[5 : 5 + size]))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


if __name__ == "__main__":
    with _Server(("0.0.0.0", int(sys.argv[2])), _Member) as server:
        server.serve_forever()
