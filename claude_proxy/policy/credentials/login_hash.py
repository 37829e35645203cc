"""Salted hashes of logins, for pins: made, written and read.

Secrets stay outside: a pinned login is known by its hash alone. Pure.
"""

import hmac
import re

from claude_proxy.policy.credentials.detection import read_value

_SALT_BYTES = 16
_read_hash = re.compile(r"sha256:((?:[0-9a-f]{2}){8,64}):([0-9a-f]{64})").fullmatch


def digest_of(salt: bytes, login: bytes) -> bytes:
    """Return the salted hash of a login (HMAC-SHA-256 with the salt as its key)."""
    return hmac.digest(salt, login, "sha256")


def hash_of(login: bytes, salt: bytes) -> str:
    """Return a login's hash as the allowlist spells it: "sha256:SALT:DIGEST"."""
    if len(salt) < _SALT_BYTES:
        raise ValueError("the salt is too short")
    return f"sha256:{salt.hex()}:{digest_of(salt, login).hex()}"


def read_hash(text: str) -> tuple[bytes, bytes]:
    """Read salt and digest; ValueError if it is spelled in any other way."""
    match = _read_hash(text)
    if match is None:
        raise ValueError("it is not spelled sha256:SALT:DIGEST, as `claude-proxy credentials hash`")
    return bytes.fromhex(match[1]), bytes.fromhex(match[2])


def login_of(text: bytes) -> bytes:
    """Return what a pin compares, of a login as its owner may write it ("Bearer x", "user:key")."""
    found = read_value(b"authorization", text.strip())
    return found.keys[0]
