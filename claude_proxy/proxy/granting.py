"""What the gate asks about grants: the policy of a client by them, and their uses.

Laws kept: one judge: the answer to every question is still a decision of a policy. A proxy without
grants has no source of them, and asks nothing.
"""

from collections.abc import Collection
from typing import Protocol

from claude_proxy.policy.policy import Policy


class GrantSource(Protocol):
    """The grants in force."""

    def policy_for(self, policy: Policy, run: str | None, held: Collection[int] = ()) -> Policy:
        """Return the policy with the grants of a run, and with those whose uses go on (`held`)."""

    def is_counted(self, number: int) -> bool:
        """Tell whether each request by a grant is a use of it."""

    def take(self, number: int) -> bool:
        """Take one use of a counted grant; if there was none left, it grants nothing any more."""

    def goes_on(self, number: int, *, held: bool) -> bool:
        """Tell whether what a grant has allowed may go on; `held`: it took a use."""
