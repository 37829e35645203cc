"""What a proxy says of itself: who has tunnels where."""

from claude_proxy.server.control_status import tunnels_of


def test_tunnels_are_counted_by_run_and_target() -> None:
    keys = [("web", "a.example:443")] * 3 + [(None, "b.example:443"), None]

    named, more = tunnels_of(keys)

    assert named == [
        {"run": "web", "target": "a.example:443", "count": 3},
        {"run": None, "target": "b.example:443", "count": 1},
    ]
    assert more == 0


def test_more_tunnels_than_can_be_listed_are_counted() -> None:
    named, more = tunnels_of([(None, f"h{number}.example:443") for number in range(700)])

    assert len(named) + more == 700
    assert more == 200
