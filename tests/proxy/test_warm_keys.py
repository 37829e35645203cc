"""A warm connection belongs to one client, target and credential, and no client has all of them."""

from claude_proxy.proxy.warm_keys import MOST, MOST_OF_OWNER, Key, Owner, Route, too_many
from claude_proxy.wire.authority import Authority


def key(client: str, host: str = "example.com") -> Key:
    route = Route(Authority.of(host, 443), tls=True, alpn=(b"http/1.1",), tunnel=True)
    return Key(Owner("tcp", client, None), route, None)


def keys(client: str, count: int) -> list[Key]:
    return [key(client, f"host{number}.example") for number in range(count)]


def test_there_is_room_below_the_bounds() -> None:
    assert too_many(keys("a", MOST_OF_OWNER - 1), key("a")) is None


def test_a_client_that_has_its_share_gives_up_its_own_oldest() -> None:
    mine, others = keys("a", MOST_OF_OWNER), keys("b", 3)

    assert too_many([*others, *mine], key("a")) == mine[0]


def test_where_all_are_taken_the_client_with_most_gives_up_its_oldest() -> None:
    many = keys("greedy", MOST_OF_OWNER)
    others = [key(f"client {number}") for number in range(MOST - MOST_OF_OWNER)]

    assert too_many([*others, *many], key("new")) == many[0]
    assert too_many([*others[1:], *many], key("new")) is None


def test_processes_that_serve_the_same_clients_divide_the_bounds() -> None:
    mine = keys("a", MOST_OF_OWNER // 4)
    others = [key(f"client {number}") for number in range(MOST // 4)]

    assert too_many(mine, key("a"), processes=4) == mine[0]
    assert too_many(others, key("new"), processes=4) == others[0]
    assert too_many(mine[1:], key("a"), processes=4) is None
    assert too_many([], key("a"), processes=64) is None
