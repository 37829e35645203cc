"""Holds every name that the service's files must agree on, once."""

from dataclasses import dataclass

PROGRAM = "claude-proxy"


@dataclass(frozen=True, slots=True)
class Names:
    """What one kind of service calls its user, units, directories and tables."""

    name: str

    @property
    def service(self) -> str:
        """The unit that runs the proxy."""
        return f"{self.name}.service"

    @property
    def socket(self) -> str:
        """The unit that listens for it."""
        return f"{self.name}.socket"

    @property
    def user(self) -> str:
        """Who a system service runs as, and its group; fixed, as the packet filter goes by it."""
        return self.name

    @property
    def configuration(self) -> str:
        """Where a system service's policy lies; root's."""
        return f"/etc/{self.name}"

    @property
    def allowlist(self) -> str:
        """The policy of a system service."""
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
        """The file that says which user a system service needs (sysusers.d(5))."""
        return f"/etc/sysusers.d/{self.name}.conf"

    @property
    def firewall(self) -> str:
        """The packet filter's rules for the user of a system service."""
        return f"{self.configuration}/egress.nft"

    @property
    def table(self) -> str:
        """The table of those rules: one of its own, so that it can be taken away whole."""
        return self.name.replace("-", "_")

    @property
    def log_prefix(self) -> str:
        """What begins the kernel's line about a packet that was dropped."""
        return f"{self.name}-denied: "

    @property
    def credential(self) -> str:
        """The name by which systemd hands over the key (LoadCredential=)."""
        return "anthropic"

    @property
    def label(self) -> str:
        """How launchd calls it."""
        return self.name

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return _DESCRIPTIONS[self.name]


_DESCRIPTIONS = {
    PROGRAM: "claude-proxy, the egress firewall for coding agents",
    f"{PROGRAM}-gateway": "claude-proxy, the gateway that holds the API key",
}
_NAMES = {"serve": Names(PROGRAM), "gateway": Names(f"{PROGRAM}-gateway")}


def names_of(kind: str) -> Names:
    """Return the names of the service that runs this command of claude-proxy."""
    return _NAMES[kind]
