"""Laws of the places where anybody can store or receive data."""

import pytest

from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.shared_places import (
    _BY_BASE,
    _PLACES,
    PlaceKind,
    shared_place_of,
    shared_places_under,
)
from claude_proxy.wire.authority import normalise_host


def test_every_place_is_a_normalised_name_and_listed_once() -> None:
    names = [name for text in _PLACES.values() for name in text.split()]

    assert [name for name in names if normalise_host(name) != name] == []
    assert len(names) == len(set(names)) == len(_BY_BASE)


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("storage.googleapis.com", PlaceKind.OBJECT_STORE),
        ("mybucket.s3.amazonaws.com", PlaceKind.OBJECT_STORE),
        ("gist.github.com", PlaceKind.CODE),
        ("raw.githubusercontent.com", PlaceKind.CODE),
        ("ab12.ngrok-free.app", PlaceKind.TUNNEL),
        ("dns.google", PlaceKind.DNS),
        ("1.1.1.1", PlaceKind.DNS),
        ("pastebin.com", PlaceKind.PASTE),
        ("hooks.slack.com", PlaceKind.MESSAGES),
        ("me.github.io", PlaceKind.SITES),
        ("somebody.readthedocs.io", PlaceKind.SITES),  # a provider's suffix that is not listed
    ],
)
def test_a_place_and_what_is_below_it_is_known(host: str, kind: PlaceKind) -> None:
    found = shared_place_of(host)

    assert found is not None
    assert found.kind is kind


@pytest.mark.parametrize(
    "host", ["example.com", "github.com", "any.pypi.org", "10.0.0.1", "com", ""]
)
def test_an_ordinary_host_is_no_shared_place(host: str) -> None:
    assert shared_place_of(host) is None


@pytest.mark.parametrize(
    ("pattern", "base"),
    [
        ("*.github.com", "gist.github.com"),
        (".opendns.com", "doh.opendns.com"),
        ("*.core.windows.net", "blob.core.windows.net"),
        ("*.x.ngrok.app", "ngrok.app"),
        ("*.myaccount.blob.core.windows.net", "blob.core.windows.net"),
    ],
)
def test_a_wildcard_leads_to_the_places_below_it_and_to_the_one_it_is_below(
    pattern: str, base: str
) -> None:
    assert base in [place.base for place in shared_places_under(HostPattern.parse(pattern))]


def test_a_pattern_of_every_host_leads_to_all_places() -> None:
    assert len(list(shared_places_under(HostPattern.every()))) == len(_BY_BASE)


@pytest.mark.parametrize("pattern", ["gist.github.com", "10.0.0.0/8", "*.example.com"])
def test_what_is_no_wildcard_or_leads_nowhere_else_yields_nothing(pattern: str) -> None:
    assert list(shared_places_under(HostPattern.parse(pattern))) == []
