"""Names that the service's files must agree on: user, units, directories, tables."""

from dataclasses import dataclass

PROGRAM = "claude-proxy"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one kind of service."""

    name: str

    @property
    def service(self) -> str:
        """The unit that runs the proxy."""
        return f"{self.name}.service"

    @property
    def socket(self) -> str:
        """The unit that listens on its behalf."""
        return f"{self.name}.socket"

    @property
    def user(self) -> str:
        """User and group of a system service; fixed, as the packet filter matches it."""
        return self.name

    @property
    def configuration(self) -> str:
        """The directory of a system service's policy, owned by root."""
        return f"/etc/{self.name}"

    @property
    def allowlist(self) -> str:
        """The allowlist of a system service."""
        return f"{self.configuration}/allowlist.yaml"

    @property
    def state(self) -> str:
        """Where a system service keeps its CA and its audit log."""
        return f"/var/lib/{self.name}"

    @property
    def runtime(self) -> str:
        """Where a system service puts its Unix sockets."""
        return f"/run/{self.name}"

    @property
    def units(self) -> str:
        """Where the units of a system service are installed."""
        return "/etc/systemd/system"

    @property
    def sysusers(self) -> str:
        """The file that declares the user of a system service (sysusers.d(5))."""
        return f"/etc/sysusers.d/{self.name}.conf"

    @property
    def firewall(self) -> str:
        """The packet filter's rules for the user of a system service."""
        return f"{self.configuration}/egress.nft"

    @property
    def table(self) -> str:
        """The nftables table of those rules; its own, so that it can be removed as a whole."""
        return self.name.replace("-", "_")

    @property
    def log_prefix(self) -> str:
        """Prefix of the kernel log line for a dropped packet."""
        return f"{self.name}-denied: "

    @property
    def credential(self) -> str:
        """The name under which systemd passes the key (LoadCredential=)."""
        return "anthropic"

    @property
    def label(self) -> str:
        """The launchd label."""
        return self.name

    @property
    def description(self) -> str:
        """A short description."""
        return _DESCRIPTIONS[self.name]


_DESCRIPTIONS = {
    PROGRAM: "claude-proxy, the egress firewall for coding agents",
    f"{PROGRAM}-gateway": "claude-proxy, the gateway that holds the API key",
}
_NAMES = {"serve": Names(PROGRAM), "gateway": Names(f"{PROGRAM}-gateway")}


def names_of(kind: str) -> Names:
    """Return the names of the service that runs this command of claude-proxy."""
    return _NAMES[kind]
