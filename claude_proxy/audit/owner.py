"""Owner of an audit event: the run or client on whose share of the log it counts; pure.

A run is one owner, however many processes it has. Without a run it is the user and the program of a
Unix socket's peer, or the address of a TCP client: never a process id or a port, of which a client
has as many as it wants. The same in Python, for one event, and in SQL, for all rows.
"""

from typing import Final

_PEER: Final = "pid "
_USER: Final = " uid "
_MORE: Final = ", "  # what follows the peer in the client's column

OWNER_IN_SQL: Final = (
    "CASE WHEN run IS NOT NULL THEN 'run ' || run"
    " WHEN substr(client, 1, 4) = 'pid ' AND instr(client, ' uid ')"
    " THEN substr({peer}, instr({peer}, ' uid ') + 1)"
    " WHEN instr({peer}, ':') THEN rtrim(rtrim({peer}, '0123456789'), ':')"
    " ELSE {peer} END"
).format(peer="substr(client, 1, instr(client || ', ', ', ') - 1)")


def name_of(client: str, run: str | None) -> str:
    """Return what a client is called in a sentence: "a program in run NAME", "curl"."""
    if run is not None:
        return f"a program in run {run}"
    owner = owner_of(client, run)
    if owner.startswith("uid "):
        program = owner.rpartition("/")[2]
        return program if "/" in owner else f"a client of {owner.removesuffix(' ?')}"
    return f"a client at {owner}"


def owner_of(client: str, run: str | None) -> str:
    """Return the owner of an event: "run NAME", "uid 1000 /usr/bin/curl" or "192.0.2.7"."""
    if run is not None:
        return f"run {run}"
    peer = client.partition(_MORE)[0]
    if peer.startswith(_PEER) and _USER in peer:
        return peer[peer.index(_USER) + 1 :]
    return peer.rstrip("0123456789").rstrip(":") if ":" in peer else peer
