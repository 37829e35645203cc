"""Database logins: which login a client may ask for where a database's password is bound.

Default-deny, secrets stay outside. Inside, the placeholder stands for the password. Another role,
another database than the owner named, another password or a session of replication is a foreign
login. Pure.
"""

import hmac
from collections.abc import Iterable

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.credentials.binding import (
    Binding,
    DatabaseLogin,
    Injection,
    bound_to,
)
from claude_proxy.policy.reason import Reason
from claude_proxy.wire.authority import Authority


@dataclass(frozen=True, slots=True, repr=False)
class AskedLogin:
    """What a client says about who it is."""

    user: str
    database: str
    password: bytes
    replicates: bool = False


def is_for_requests(binding: Binding) -> bool:
    """Return whether a binding is for requests, as all are that are not for a database."""
    return database_use(binding) is None


def database_use(binding: Binding) -> DatabaseLogin | None:
    """Return how a binding logs in to a database; None if it is for requests."""
    return binding.use.database if isinstance(binding.use, Injection) else None


def databases_at(target: Authority, bindings: Iterable[Binding]) -> list[Binding]:
    """Return those of `bindings` that log in to the database at `target`."""
    return [
        binding
        for binding in bound_to(target, bindings)
        if not is_for_requests(binding) and target.port in binding.ports
    ]


def judge_login(binding: Binding, asked: AskedLogin) -> Reason | None:
    """Return why a login is denied where `binding` is for the database; None: it is allowed."""
    use, login = binding.use, database_use(binding)
    if login is None or not isinstance(use, Injection):
        return Reason.INTERNAL_ERROR
    if asked.replicates:
        return Reason.METHOD_REFUSED
    same_place = asked.user == use.user and login.name in {"", asked.database}
    placeholder = use.placeholder.encode()
    is_placeholder = bool(placeholder) and hmac.compare_digest(asked.password, placeholder)
    return None if same_place and is_placeholder else Reason.FOREIGN_CREDENTIAL
