"""The laws of secrets: no repr, log or pickle shows one."""

import logging
import pickle
from base64 import b64decode, b64encode

import pytest

from claude_proxy.policy.credentials.detection import find_logins
from claude_proxy.policy.credentials.secret import Secret
from tests.policy.credentials.cases import (
    HOLDER,
    INJECTED,
    KEY,
    OAUTH,
    SECRETS,
    decided,
    request,
)


def test_no_repr_log_or_pickle_shows_a_value(caplog: pytest.LogCaptureFixture) -> None:
    asked = request((b"x-api-key", HOLDER.encode()))
    decision = decided(INJECTED, asked, SECRETS)
    login = find_logins(b"", b"", [(b"x-api-key", KEY)])[0]

    with caplog.at_level(logging.DEBUG):
        for thing in (decision, SECRETS, login, Secret(KEY)):
            logging.getLogger("test").debug("%s %r %s", thing, thing, f"{thing}")
    for thing in (decision, Secret(KEY)):
        with pytest.raises(TypeError):
            pickle.dumps(thing)

    assert "CANARY" not in caplog.text
    assert b"CANARY" not in b64decode(b64encode(caplog.text.encode()))


def test_secrets_compare_without_showing_and_hash_alike() -> None:
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret(OAUTH)
    assert Secret(KEY) != KEY
    assert hash(Secret(KEY)) == hash(Secret(OAUTH))
    assert str(Secret(KEY)) == f"{Secret(KEY)}" == "Secret(set)"
