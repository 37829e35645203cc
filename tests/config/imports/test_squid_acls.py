"""Laws of squid's access lists: each says what it matches, or that this cannot be known."""

from ipaddress import ip_network

import pytest

from claude_proxy.config.imports.openings import HostIs, MethodIs, PortIs, UrlIs
from claude_proxy.config.imports.squid_acls import Acls, Client, Unknown, View, networks_of
from claude_proxy.config.imports.squid_text import directives
from tests.config.imports.files import Texts


def _acls(*lines: str) -> Acls:
    text = "\n".join([*lines, "http_access deny to_localhost CONNECT manager all localhost"])
    return Acls(directives(text, name="s.conf", library=Texts()), Texts())


@pytest.mark.parametrize(
    ("line", "view", "kind"),
    [
        ("dstdomain .a.com", View.TUNNEL, HostIs),
        ("dstdom_regex a", View.PLAIN, HostIs),
        ("dst 10.0.0.0/8", View.PLAIN, HostIs),
        ("dst a.com", View.PLAIN, Unknown),
        ("port 80 1025-65535", View.TUNNEL, PortIs),
        ("method GET", View.PLAIN, MethodIs),
        ("url_regex x", View.PLAIN, UrlIs),
        ("url_regex x", View.TUNNEL, HostIs),
        ("src 10.0.0.0/8", View.PLAIN, Client),
        ("proxy_auth REQUIRED", View.PLAIN, Client),
        ("time 09:00-17:00", View.PLAIN, Unknown),
        ("browser Firefox", View.PLAIN, Unknown),
        ("external check", View.PLAIN, Unknown),
        ("proto HTTP", View.TUNNEL, Unknown),
    ],
)
def test_a_list_means_what_its_type_says(line: str, view: View, kind: type) -> None:
    assert isinstance(_acls(f"acl a {line}").meaning("a", view), kind)


@pytest.mark.parametrize(
    ("line", "view", "holds"),
    [
        ("method CONNECT", View.TUNNEL, True),
        ("method GET", View.TUNNEL, False),
        ("urlpath_regex x", View.TUNNEL, False),
        ("proto HTTP", View.PLAIN, True),
        ("proto FTP", View.TUNNEL, False),
        ("src all", View.PLAIN, True),
    ],
)
def test_what_is_so_for_every_request_is_known(line: str, view: View, *, holds: bool) -> None:
    assert _acls(f"acl a {line}").meaning("a", view) is holds


def test_lists_that_squid_has_by_itself_are_known() -> None:
    acls = _acls()

    assert acls.meaning("all", View.PLAIN) is True
    assert acls.meaning("manager", View.PLAIN) is False
    assert acls.meaning("CONNECT", View.TUNNEL) is True
    assert isinstance(acls.meaning("localhost", View.PLAIN), Client)
    assert isinstance(acls.meaning("to_localhost", View.PLAIN), HostIs)
    assert not acls.knows("nothing")


def test_a_wildcard_that_squid_does_not_have_matches_no_host() -> None:
    acls = _acls("acl a dstdomain *.a.com")

    acls.meaning("a", View.TUNNEL)

    assert '"*.a.com" matches no host' in acls.notes[0][0]


def test_ranges_of_addresses_are_networks() -> None:
    assert list(networks_of("10.0.0.0-10.0.0.3")) == [ip_network("10.0.0.0/30")]
    assert list(networks_of("10.0.0.0/255.0.0.0")) == [ip_network("10.0.0.0/8")]
    with pytest.raises(ValueError, match="not"):
        list(networks_of("a.com"))
