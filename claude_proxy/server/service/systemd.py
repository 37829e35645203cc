"""systemd units, sysusers.d file and nftables rules of a service."""

from claude_proxy.config.settings import DEFAULT_HOST, DEFAULT_PORT, TcpListen, UnixListen
from claude_proxy.server.service import quoting
from claude_proxy.server.service.plan import Firewall, Scope, ServiceKind, ServicePlan, Unit
from claude_proxy.server.service.template_files import filled

# Files a process opens besides its connections; each connection has a client and an upstream.
_OTHER_FILES = 512
_FILES_PER_CONNECTION = 2
_MIB_PER_WORKER = 1024
_THREADS_PER_WORKER = 64  # a pool for name lookups, plus credential commands
_STOP_MARGIN_S = 20  # added to the grace time of open exchanges
_GATEWAY_PORT = 9000

# A credential's command inherits it. Those of a list may be any programs, also ones that compile
# while they run, as those written for Node.js do; the gateway has one credential.
_MADE_CODE = {
    ServiceKind.SERVE: "# No MemoryDenyWriteExecute=: a credential's command may make code.",
    ServiceKind.GATEWAY: "MemoryDenyWriteExecute=yes",
}

_FIREWALL_FIRST = "# Before the proxy starts: without these rules it does not run."

_SHARED_MODE, _OWN_MODE = "0666", "0600"


def files_of(plan: ServicePlan) -> tuple[Unit, ...]:
    """Return every file of a service; ValueError if a value cannot be written in one."""
    units = [Unit(_in_units(plan, plan.names.service), _service(plan))]
    if plan.activated:
        units.append(Unit(_in_units(plan, plan.names.socket), _socket(plan)))
    if plan.scope is Scope.SYSTEM:
        units.append(Unit(plan.names.sysusers, filled("sysusers.conf", _facts(plan))))
    if plan.firewall is not None:
        units.append(Unit(plan.names.firewall, firewall_of(plan, plan.firewall)))
    return tuple(units)


def default_listener(kind: ServiceKind) -> TcpListen:
    """Return where a command listens by default."""
    return TcpListen(DEFAULT_HOST, DEFAULT_PORT if kind is ServiceKind.SERVE else _GATEWAY_PORT)


def _in_units(plan: ServicePlan, name: str) -> str:
    return f"{plan.names.units}/{name}" if plan.scope is Scope.SYSTEM else name


def _facts(plan: ServicePlan) -> dict[str, str]:
    names = plan.names
    return {
        "name": names.name,
        "user": names.user,
        "description": names.description,
        "configuration": names.configuration,
        "state": names.state,
    }


# --- systemd

_OF_RUNS = "claude-proxy"  # in a user's runtime directory; proxies have their control sockets there


def _service(plan: ServicePlan) -> str:
    return filled(f"{plan.scope}.service", _facts(plan) | _run(plan) | _limits(plan))


def _run(plan: ServicePlan) -> dict[str, str]:
    rules = quoting.path_of(plan.names.firewall)
    load = "" if plan.firewall is None else f"+nft -f {rules}"
    return {
        "unit_extras": "\n".join(_dependencies(plan)),
        "firewall_start": f"{_FIREWALL_FIRST}\nExecStartPre={load}" if load else "",
        "firewall_reload": f"ExecReload={load}" if load else "",
        "exec_start": quoting.command_of(command_of(plan)),
        # Otherwise systemd would remove the sockets with the directory when the service stops.
        # The directory of a user's proxy is that of the user's runs, too.
        "runtime_extras": "RuntimeDirectoryPreserve=yes"
        if plan.activated or plan.scope is Scope.USER
        else "",
        "runtime_directories": " ".join(dict.fromkeys((plan.names.name, _OF_RUNS))),
        "credential": _credential(plan),
        "writable": _writable(plan),
        "install": _install(plan),
        "made_code": _MADE_CODE[plan.kind],
    }


def _dependencies(plan: ServicePlan) -> list[str]:
    dependencies = []
    if plan.activated:
        dependencies += [f"Requires={plan.names.socket}", f"After={plan.names.socket}"]
    if plan.firewall is not None:
        # Flushing or reloading all rules removes those of the service too.
        dependencies += [
            "After=nftables.service",
            "PartOf=nftables.service",
            "ReloadPropagatedFrom=nftables.service",
        ]
    return dependencies


def _install(plan: ServicePlan) -> str:
    if plan.activated:
        return f"Also={plan.names.socket}"
    target = "multi-user" if plan.scope is Scope.SYSTEM else "default"
    return f"WantedBy={target}.target"


def command_of(plan: ServicePlan) -> tuple[str, ...]:
    """Return the command line of the service."""
    listen = () if plan.activated else listening_words(plan.kind, plan.listen)
    key = () if plan.key_option is None else (plan.key_option, plan.names.credential)
    return (*plan.program, plan.kind.value, *listen, *key, *plan.words)


def listening_words(
    kind: ServiceKind, places: tuple[TcpListen | UnixListen, ...]
) -> tuple[str, ...]:
    """Return the options that tell a command where to listen."""
    if kind is ServiceKind.SERVE:
        return tuple(f"--listen={listen}" for listen in places)
    words: list[str] = []
    for listen in places:
        if isinstance(listen, UnixListen):
            words.append(f"--uds={listen.path}")
        else:
            words += [f"--host={listen.host}", f"--port={listen.port}"]
    return tuple(words)


def _credential(plan: ServicePlan) -> str:
    if plan.key_file is None:
        return ""
    return f"LoadCredential={plan.names.credential}:{quoting.path_of(plan.key_file)}"


def _writable(plan: ServicePlan) -> str:
    paths = " ".join(quoting.word_of(path) for path in plan.writable)
    return f"ReadWritePaths={paths}" if paths else ""


def files_needed(plan: ServicePlan) -> int:
    """Return how many files and sockets one process may have to open."""
    return plan.connections * _FILES_PER_CONNECTION + _OTHER_FILES


def _limits(plan: ServicePlan) -> dict[str, str]:
    return {
        "stop_seconds": str(int(plan.grace_s) + _STOP_MARGIN_S),
        "files": str(files_needed(plan)),
        "tasks": str(plan.workers * _THREADS_PER_WORKER + _THREADS_PER_WORKER),
        "memory": f"{plan.workers * _MIB_PER_WORKER}M",
        # A worker uses at most one core; more would be a bug.
        "cpu": f"{plan.workers * 100}%",
    }


def _socket(plan: ServicePlan) -> str:
    streams = plan.listen or (default_listener(plan.kind),)
    owner = f"SocketUser={plan.names.user}" if plan.scope is Scope.SYSTEM else ""
    # Distinguishes the gateway's sockets from the proxy's.
    name = "FileDescriptorName=gateway\n" if plan.kind is ServiceKind.GATEWAY else ""
    facts = {
        "streams": name + "\n".join(f"ListenStream={_stream(listen)}" for listen in streams),
        "socket_owner": owner,
        "socket_mode": _SHARED_MODE if plan.shared else _OWN_MODE,
    }
    return filled("activation.socket", _facts(plan) | facts)


def _stream(listen: TcpListen | UnixListen) -> str:
    return quoting.path_of(str(listen.path)) if isinstance(listen, UnixListen) else str(listen)


# --- the packet filter


def firewall_of(plan: ServicePlan, firewall: Firewall) -> str:
    """Return the packet filter's rules for the service's user."""
    names = plan.names
    facts = {
        "table": names.table,
        "log_prefix": names.log_prefix,
        "user": names.user,
        "answers": "        # Replies to clients on other machines.\n"
        "        ct state established ct direction reply accept"
        if plan.remote
        else "",
    }
    return filled("egress.nft", facts | _reached(firewall))


def pod_firewall_of(firewall: Firewall, *, user: int, table: str) -> str:
    """Return the packet filter's rules of a network namespace that a proxy shares with its clients.

    `user`: the number of the proxy's user, who alone may send to other machines.
    """
    return filled("pod.nft", {"table": table, "user": str(user)} | _reached(firewall))


def _reached(firewall: Firewall) -> dict[str, str]:
    return {
        "ports": ", ".join(str(port) for port in sorted(firewall.ports)),
        "name_server_sets": "\n".join(_sets(firewall)),
        "name_servers": "\n".join(_name_servers(firewall)),
    }


_FAMILIES = ((4, "ip", "ipv4_addr"), (6, "ip6", "ipv6_addr"))


def _sets(firewall: Firewall) -> list[str]:
    lines = []
    for version, _, kind in _FAMILIES:
        found = [str(one) for one in firewall.name_servers if one.version == version]
        if found:
            elements = ", ".join(found)
            lines.append(f"    set name_servers_{version} {{")
            lines.append(f"        type {kind}; elements = {{ {elements} }}")
            lines.append("    }")
            lines.append("")
    return lines


def _name_servers(firewall: Firewall) -> list[str]:
    if not firewall.name_servers:
        return ["        meta l4proto { tcp, udp } th dport 53 accept"]
    versions = {one.version for one in firewall.name_servers}
    return [
        f"        {family} daddr @name_servers_{version} meta l4proto {{ tcp, udp }}"
        " th dport 53 accept"
        for version, family, _ in _FAMILIES
        if version in versions
    ]
