"""Each client has a share, as long as it is connected."""

from claude_proxy.proxy.shares import Shares


class Held:
    """A connection that only counts."""

    def work(self) -> bool:
        return False

    def balance(self) -> None:
        pass


def test_connections_of_one_client_have_one_share() -> None:
    shares = Shares()

    assert shares.of("a") is shares.of("a")
    assert shares.of("a") is not shares.of("b")


def test_a_share_is_forgotten_with_its_last_connection() -> None:
    shares, first, second = Shares(), Held(), Held()
    share = shares.of("a")
    share.join(first)
    share.join(second)
    share.leave(first)
    assert shares.of("a") is share
    share.leave(second)

    assert shares.of("a") is not share
