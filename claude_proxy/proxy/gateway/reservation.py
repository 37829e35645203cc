"""Reservations of a gateway: the most tokens that a call of the Messages API may use.

Fail closed: what a body does not say, or says in a way that is not read here, counts as the most
that a model takes or gives. Pure.
"""

import json
import re

from claude_proxy.events import Usage

# The largest context window, and the longest answer, of any model.
_MOST_IN = 1_000_000
_MOST_OUT = 128_000
# A longer body is not parsed again, as that would keep other clients waiting.
_PARSED_BYTES = 1024 * 1024
_TOKEN_BYTES = 3  # of text in JSON: fewer than English has, so that there are more tokens
# An image or a page of a document, by value: it costs far less than its length in Base64.
_FILE_TOKENS = 5_000
_OWN_TOKENS = 500  # what the provider adds to a call, for tools and the like
_find_files = re.compile(rb'"data"\s*:\s*"([A-Za-z0-9+/=]{4096,})"').finditer
_find_limits = re.compile(rb'(?<!\\)"max_tokens"\s*:\s*([0-9]{1,9})').findall


def most_usage(body: bytes) -> Usage:
    """Return the most that the call with this body may use, for all that is known before it."""
    files = [len(found[1]) for found in _find_files(body)]
    text = (len(body) - sum(files)) // _TOKEN_BYTES + len(files) * _FILE_TOKENS
    return Usage(tokens_in=min(text + _OWN_TOKENS, _MOST_IN), tokens_out=_most_out(body))


def _most_out(body: bytes) -> int:
    if len(body) > _PARSED_BYTES:
        return _MOST_OUT
    # A name may be given twice, and servers differ in which one counts.
    limits = [int(limit) for limit in _find_limits(body)]
    try:
        value = json.loads(body)["max_tokens"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return _MOST_OUT
    if type(value) is not int or value < 1:
        return _MOST_OUT
    return min(max(value, *limits, 0), _MOST_OUT)
