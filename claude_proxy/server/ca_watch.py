"""CA watch: says when the CA expires, is removed or replaced while the proxy runs.

Keeps "fail closed": with a CA that no client accepts, tunnels whose TLS would be intercepted are
denied with a reason of their own, before any TLS is spoken.
"""

from collections.abc import Callable

from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice
from claude_proxy.trust.certificate_authority import CertificateAuthority


class CaWatch:
    """What is known of the CA in use, and who learns of a change."""

    def __init__(
        self,
        authority: CertificateAuthority | None,
        *,
        report: Callable[[list[str]], None],
        record: Callable[[Notice], None],
        replace: bool = True,
    ) -> None:
        """Watch `authority`, if there is one.

        Without `replace`, a new CA is only used once the old one has expired: the programs in a
        sandbox trust the one that they were started with.
        """
        self._authority = authority
        self._report = report
        self._record = record
        self._replace = replace
        self._seen: str | None = None  # at the last look
        self._told: str | None = None

    def is_valid(self) -> bool:
        """Tell whether clients would accept what the CA signs now."""
        return self._authority is None or self._authority.is_valid

    def look(self) -> None:
        """Look at the CA's file and the clock, and tell what has changed; about once a second."""
        authority = self._authority
        if authority is None:
            return
        before, problem = authority.fingerprint, None
        try:
            authority.refresh(replace=self._replace)
        except ConfigError as error:
            problem = error
        if authority.fingerprint != before:
            text = f"the CA was replaced; clients must trust {authority.certificate_path}"
            self._report([f"warning: {text}"])
            self._record(Notice(0, "ca-replaced", text))
        self._tell(problem)

    def _tell(self, problem: ConfigError | None) -> None:
        what = None if problem is None else problem.what
        # Twice, as the file may be on its way.
        if what == self._seen and what != self._told:
            self._told = what
            if problem is not None:
                self._report(problem.lines())
                self._record(Notice(0, "ca-unusable", problem.what))
        self._seen = what
