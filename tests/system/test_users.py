"""A user is identified by number or name, and never guessed."""

import os
import pwd

import pytest

from claude_proxy.system.users import name_of_user, parse_user


def test_a_user_is_a_number_or_a_name() -> None:
    me = pwd.getpwuid(os.geteuid())

    assert parse_user(str(me.pw_uid)) == me.pw_uid
    assert parse_user(me.pw_name) == me.pw_uid


@pytest.mark.parametrize("text", ["", "no-such-user", "4294967295", "-1", "\u0661", "a\0b"])
def test_an_unknown_user_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a user of this machine"):
        parse_user(text)


def test_a_user_is_called_by_name_where_there_is_one() -> None:
    assert name_of_user(0) == "root"
    assert name_of_user(3_999_999_999) == "3999999999"
