"""The user database of a container names the home that HOME names, for the user of CMD alone."""

import pwd

from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.sandbox.container.plan.passwd_file import with_user

IMAGE = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"


def test_a_user_whom_the_image_does_not_know_has_a_line() -> None:
    assert with_user(IMAGE, 1000, 100, "/home/agent") == (
        f"{IMAGE}agent:x:1000:100::/home/agent:/bin/sh\n"
    )


def test_an_empty_image_has_one_line() -> None:
    assert with_user("", 0, 0, "/home/agent") == "root:x:0:0::/home/agent:/bin/sh\n"


def test_a_home_that_is_none_is_replaced_and_all_else_stays() -> None:
    found = with_user(IMAGE, 65534, 65534, "/home/agent")

    assert found == IMAGE.replace("/nonexistent", "/home/agent")


def test_what_fits_stays_as_it_is() -> None:
    assert with_user(IMAGE, 0, 0, "/root") == IMAGE


def test_only_the_first_line_of_a_user_counts() -> None:
    twice = f"{IMAGE}toor:x:0:0::/other:/bin/sh\n"

    assert with_user(twice, 0, 0, "/home/agent") == twice.replace("/root", "/home/agent")


def test_a_name_that_is_taken_is_not_given_twice() -> None:
    taken = "agent:x:5:5::/srv:/bin/sh\nagent1000:x:6:6::/srv:/bin/sh\n"

    assert with_user(taken, 1000, 1000, "/home/agent").endswith(
        "\nagent1000x:x:1000:1000::/home/agent:/bin/sh\n"
    )


def test_a_last_line_without_an_end_has_one() -> None:
    assert with_user(IMAGE.rstrip(), 0, 0, "/root") == IMAGE


@given(st.text(), st.integers(0, 70_000))
def test_of_any_text_the_user_has_exactly_this_home(text: str, uid: int) -> None:
    lines = with_user(text, uid, uid, "/home/agent").split("\n")

    homes = [
        fields[5]
        for line in lines
        if len(fields := line.split(":")) == len(pwd.getpwuid(0)) and fields[2] == str(uid)
    ]
    assert homes[0] == "/home/agent"
