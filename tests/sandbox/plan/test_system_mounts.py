"""Of the system only what contains no secret is shown."""

from pathlib import Path

from claude_proxy.sandbox.plan import system_mounts
from claude_proxy.sandbox.plan.model import (
    User,
)
from tests.sandbox.boxes import (
    HOME,
)


def test_etc_shows_nothing_that_could_hold_a_secret() -> None:
    hidden = (
        *(
            "shadow",
            "shadow-",
            "gshadow",
            "sudoers",
            "sudoers.d",
            "ssh",
            "NetworkManager",
            "docker",
        ),
        *(
            "machine-id",
            "environment",
            "krb5.conf",
            "krb5.keytab",
            "passwd-",
            "netplan",
            "wireguard",
        ),
        *("npmrc", "pip.conf", "fstab", "crypttab", "hosts.allow", "ssl", "pki", "mysql", "cron.d"),
    )

    assert [name for name in hidden if system_mounts.is_shown_in_etc(name)] == []


def test_passwd_lists_only_users_that_exist_inside() -> None:
    text = system_mounts.files(User("ann", 1000, 1000, HOME), notes_lookups=False)[
        "/etc/passwd"
    ].decode()

    assert [line.split(":")[0] for line in text.splitlines()] == ["root", "ann", "nobody"]


def test_a_user_of_the_system_is_not_listed_twice() -> None:
    for user in (User("root", 0, 0, Path("/root")), User("nobody", 65534, 65534, HOME)):
        text = system_mounts.files(user, notes_lookups=False)["/etc/passwd"].decode()

        names = [line.split(":")[0] for line in text.splitlines()]
        assert len(names) == len(set(names))


def test_only_a_listener_of_the_run_is_asked_for_names() -> None:
    user = User("ann", 1000, 1000, HOME)

    without, noting = (system_mounts.files(user, notes_lookups=it) for it in (False, True))

    assert b"nameserver" not in without["/etc/resolv.conf"]
    assert b"hosts: files\n" in without["/etc/nsswitch.conf"]
    assert b"\nnameserver 127.0.0.1\n" in noting["/etc/resolv.conf"]
    assert b"hosts: files dns\n" in noting["/etc/nsswitch.conf"]


def test_a_resolver_that_asks_the_proxy_is_waited_for_longer() -> None:
    noted = system_mounts.resolver(notes_lookups=True)
    answered = system_mounts.resolver(notes_lookups=True, answers_lookups=True)

    assert b"attempts:1" in noted
    assert b"timeout:5 attempts:4" in answered
    assert b"nameserver 127.0.0.1\n" in noted
    assert b"nameserver 127.0.0.1\n" in answered
    assert b"nameserver" not in system_mounts.resolver(notes_lookups=False)
