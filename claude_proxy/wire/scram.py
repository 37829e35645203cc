"""SCRAM-SHA-256: the client's side of a login that never sends the password.

By RFC 5802 and RFC 7677. The server must prove that it knows the password, too. Fail closed: a
message with more than one reading, a nonce that does not continue the one sent, too few or too many
rounds are refused. Sans-io; the nonce is handed in, and a password that consists of printable ASCII
alone, as every secret of the vault's does: SASLprep (RFC 4013) leaves it as it is.
"""

import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Final, NoReturn

from claude_proxy.deferred.patterns import lazy_pattern

MECHANISM: Final = "SCRAM-SHA-256"
# RFC 7677 section 4: at least so many; each costs a server's guest the time of two hashes.
FEWEST_ROUNDS: Final = 4096
MOST_ROUNDS: Final = 1_000_000
_LONGEST: Final = 4096  # bytes of a message

# The header of GS2 for a client without channel binding, and its form in the final message.
_GS2: Final = "n,,"
_BINDING: Final = "c=biws"

# RFC 5802 section 7; a "," ends an attribute, so no value holds one.
_first = lazy_pattern(
    r"r=(?P<nonce>[!-+\--~]+),s=(?P<salt>[A-Za-z0-9+/]+={0,2}),i=(?P<rounds>[1-9][0-9]{0,9})"
).fullmatch
_final = lazy_pattern(r"v=(?P<proof>[A-Za-z0-9+/]+={0,2})").fullmatch


class ScramError(ValueError):
    """What the server says is no login by SCRAM that can be trusted; never quotes a message."""


class ScramClient:
    """One login: `first`, then `final` with the server's answer, then `verify`."""

    __slots__ = ("_nonce", "_password", "_server_proof")

    def __init__(self, password: bytes, nonce: str) -> None:
        self._password = password
        self._nonce = nonce
        self._server_proof: bytes | None = None

    def __repr__(self) -> str:
        return "ScramClient()"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ScramClient holds a secret, so it cannot be pickled")

    def first(self, user: str = "") -> bytes:
        """Return the client-first-message; PostgreSQL ignores its user name."""
        return f"{_GS2}{self._bare(user)}".encode()

    def final(self, server_first: bytes, user: str = "") -> bytes:
        """Return the client-final-message; ScramError if the server's is not to be trusted.

        It takes as long as the server's number of rounds says, up to a second.
        """
        said = _text(server_first)
        found = _first(said)
        if found is None:
            raise ScramError("the first message of the server is malformed")
        nonce, rounds = found["nonce"], int(found["rounds"])
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the nonce of the server does not continue ours")
        if not FEWEST_ROUNDS <= rounds <= MOST_ROUNDS:
            raise ScramError(
                f"the server asks for {rounds} rounds; from {FEWEST_ROUNDS} to {MOST_ROUNDS} "
                "are accepted"
            )
        without_proof = f"{_BINDING},r={nonce}"
        message = f"{self._bare(user)},{said},{without_proof}".encode()
        salted = hashlib.pbkdf2_hmac("sha256", self._password, _decoded(found["salt"]), rounds)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        signature = hmac.digest(stored_key, message, "sha256")
        proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self._server_proof = hmac.digest(server_key, message, "sha256")
        return f"{without_proof},p={b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Check that the server knows the password as well; ScramError if it does not."""
        found = _final(_text(server_final))
        expected = self._server_proof
        if found is None or expected is None:
            raise ScramError("the last message of the server is malformed")
        if not hmac.compare_digest(_decoded(found["proof"]), expected):
            raise ScramError("the server does not know the password")

    def _bare(self, user: str) -> str:
        escaped = user.replace("=", "=3D").replace(",", "=2C")
        return f"n={escaped},r={self._nonce}"


def _text(message: bytes) -> str:
    if len(message) > _LONGEST or not message.isascii():
        raise ScramError("a message of the server is malformed")
    return message.decode("ascii")


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ScramError("a message of the server is malformed") from None
