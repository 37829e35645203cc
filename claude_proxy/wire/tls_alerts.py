"""Unencrypted fatal TLS alerts, so that a client's error says that it was refused on purpose.

RFC 8446 section 6.
"""

from typing import Final

ACCESS_DENIED: Final = b"\x15\x03\x03\x00\x02\x02\x31"
DECODE_ERROR: Final = b"\x15\x03\x03\x00\x02\x02\x32"
