"""Salted hashes of pinned logins (HMAC-SHA-256): computing, formatting, parsing.

Secrets stay outside: only the hash of a pinned login is stored. Pure.
"""

import hmac

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.credentials.detection import read_value

_SALT_BYTES = 16
_read_hash = lazy_pattern(r"sha256:((?:[0-9a-f]{2}){8,64}):([0-9a-f]{64})").fullmatch


def digest_of(salt: bytes, login: bytes) -> bytes:
    """Return the salted hash of a login (HMAC-SHA-256 with the salt as key)."""
    return hmac.digest(salt, login, "sha256")


def hash_of(login: bytes, salt: bytes) -> str:
    """Return a login's hash as it is written in a policy file: "sha256:SALT:DIGEST"."""
    if len(salt) < _SALT_BYTES:
        raise ValueError("the salt is too short")
    return f"sha256:{salt.hex()}:{digest_of(salt, login).hex()}"


def read_hash(text: str) -> tuple[bytes, bytes]:
    """Return the salt and digest of "sha256:SALT:DIGEST"; ValueError for any other text."""
    match = _read_hash(text)
    if match is None:
        raise ValueError("it is not sha256:SALT:DIGEST, as `claude-proxy credentials hash` prints")
    return bytes.fromhex(match[1]), bytes.fromhex(match[2])


def login_of(text: bytes) -> bytes:
    """Return the part of a login ("Bearer x", "user:key") that a pin is compared with."""
    found = read_value(b"authorization", text.strip())
    return found.keys[0]
