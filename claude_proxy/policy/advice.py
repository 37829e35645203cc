"""Advice after a denial: what an owner can run to allow just what was asked for.

Law kept: never wider than what was asked. A denied method or path is named with its method and
path, an address as an address. Where no entry would help, or one would open more than was asked
for, there is no command. Pure.
"""

import shlex
from functools import lru_cache

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.git_push import push_path
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.patterns import HostPattern, PathGlob, PatternError
from claude_proxy.policy.raw_ports import RAW_PORTS
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import WEB_PORTS, RawScheme, RuleScheme
from claude_proxy.wire.address import Address, AddressKind, kind_of
from claude_proxy.wire.authority import Authority, text_of

_PROGRAM = ("claude-proxy", "allow")
_SSH = 22
_USUAL_PORTS: dict[RuleScheme, int] = {Scheme.HTTPS: 443, Scheme.HTTP: 80}
_REMEMBERED = 512  # hosts that are denied again and again
_LONGEST_PATH = 400  # a command that a person can still read
_LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")

WITHOUT_PROXY = (
    "This is the machine's own address, which the proxy does not lead to. From inside a sandbox, a "
    "server of this machine is reached only if the sandbox is started with --forward "
    "PORT=host:PORT; from outside, reach it without the proxy, by NO_PROXY=localhost,127.0.0.1,::1 "
    "or your client's own setting."
)
# From the clouds' documentation. These lead to an address that `AddressKind.METADATA` names.
METADATA_NAMES = (
    "metadata.google.internal",
    "metadata.goog",
    "metadata",
    "metadata.azure.internal",
    "instance-data",  # AWS EC2, and its full name
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "rancher-metadata",
)
# RFC 6761: no name below it is ever registered. What tries to get out asks for names there.
ATTACK_DOMAIN = "claude-proxy-doctor.test"
_ATTACK = "This was asked for by claude-proxy's own attack, and was to be denied."
_METADATA = "This is the metadata service of a cloud machine, which gives away its credentials."

_HTTP_IN_TCP = (
    "HTTP does not pass where an entry is for tcp, as its requests could not be judged: they need "
    "an entry for https, or with scheme: http, in its place."
)

_OF_HOST = frozenset({Reason.NO_RULE, Reason.PORT_NOT_ALLOWED, Reason.SCHEME_NOT_ALLOWED})
_OF_REQUEST = frozenset({Reason.METHOD_NOT_ALLOWED, Reason.PATH_NOT_ALLOWED})
_OF_TARGET = (
    _OF_HOST | _OF_REQUEST | {Reason.ADDRESS_NOT_ALLOWED, Reason.PROXY_LOOP, Reason.NOT_TLS}
)
_TUNNELS = frozenset({"", "CONNECT", "SOCKS"})


@dataclass(frozen=True, slots=True)
class DeniedAttempt:
    """What was asked for and denied."""

    reason: Reason
    target: Authority | None  # None: it was no valid host and port
    scheme: RuleScheme = Scheme.HTTPS
    method: str = ""  # "" or CONNECT for a tunnel
    path: str = ""
    query: str = ""
    address: Address | None = None  # to which the target's name leads, if that was denied
    is_own: bool = False  # the address is one of this machine


@dataclass(frozen=True, slots=True)
class Advice:
    """What may be done about a denial."""

    text: str = ""  # sentences; "": nothing to say beyond the reason
    arguments: tuple[str, ...] = ()  # of `claude-proxy allow`; empty: no entry helps

    def command(self, *options: str) -> str | None:
        """Return the line for a shell, with `options` that name the list; None if none helps."""
        return _line_of(self.arguments, options) if self.arguments else None


@lru_cache(maxsize=_REMEMBERED)
def _line_of(arguments: tuple[str, ...], options: tuple[str, ...]) -> str:
    return shlex.join((*_PROGRAM, *arguments, *options))


NO_ADVICE = Advice()


def advice_for(attempt: DeniedAttempt) -> Advice:
    """Return what an owner can do so that the same attempt is allowed the next time."""
    if attempt.reason not in _OF_TARGET:
        return NO_ADVICE
    if attempt.reason is Reason.NOT_TLS and attempt.scheme is RawScheme.TCP:
        return Advice(_HTTP_IN_TCP)
    if attempt.reason is Reason.PROXY_LOOP or attempt.is_own:
        return Advice(WITHOUT_PROXY)
    if attempt.target is None:
        return NO_ADVICE
    if _is_of_attack(attempt.target):
        return Advice(_ATTACK)
    return _for_target(attempt, attempt.target)


def _is_of_attack(target: Authority) -> bool:
    return target.host == ATTACK_DOMAIN or target.host.endswith(f".{ATTACK_DOMAIN}")


def _for_target(attempt: DeniedAttempt, target: Authority) -> Advice:
    if (text := _never_advised(target, attempt.address)) is not None:
        return Advice(text)
    scheme = RawScheme.TCP if _is_raw(attempt, target) else attempt.scheme
    host = _entry_of(target, scheme)
    if host is None or (scheme is RawScheme.TCP and target.port in WEB_PORTS):
        return NO_ADVICE  # nothing but TLS and HTTP goes there
    if _is_refused_tunnel(attempt) and target.port == _SSH and target.address is None:
        return _of_ssh(target)
    if attempt.reason in _OF_REQUEST:
        return Advice(arguments=_of_request(host, attempt))
    if attempt.reason is Reason.ADDRESS_NOT_ALLOWED:
        return _of_address(host, target, attempt.address)
    return Advice(_of_other_protocol(attempt, target, scheme), (host,))


def is_this_machine(target: Authority) -> bool:
    """Return whether a target is this machine by its spelling alone."""
    if target.address is not None:
        return kind_of(target.address) in {AddressKind.LOOPBACK, AddressKind.UNSPECIFIED}
    return target.host in _LOOPBACK_NAMES or target.host.endswith(".localhost")  # RFC 6761, 6.3


def _never_advised(target: Authority, address: Address | None) -> str | None:
    """Return what to say of a target that no command is offered for."""
    if is_this_machine(target):
        return WITHOUT_PROXY
    dialled = target.address if target.address is not None else address
    kind = None if dialled is None else kind_of(dialled)
    if kind in {AddressKind.LOOPBACK, AddressKind.UNSPECIFIED}:
        return WITHOUT_PROXY
    is_metadata = kind is AddressKind.METADATA or target.host in METADATA_NAMES
    return _METADATA if is_metadata else None


def _is_raw(attempt: DeniedAttempt, target: Authority) -> bool:
    """Return whether what was asked for is neither TLS nor HTTP, as far as that is known."""
    if attempt.reason is Reason.NOT_TLS:
        return True
    return _is_refused_tunnel(attempt) and target.port in RAW_PORTS


def _is_refused_tunnel(attempt: DeniedAttempt) -> bool:
    tunnel = attempt.method in _TUNNELS and attempt.scheme is Scheme.HTTPS
    return tunnel and attempt.reason in _OF_HOST


def _of_ssh(target: Authority) -> Advice:
    """Return the advice for SSH to a host that may be a forge: requests over HTTPS are judged."""
    host = target.host
    other = shlex.join((*_PROGRAM, f"{RawScheme.TCP.value}://{target}"))
    return Advice(
        f"For git, HTTPS is the way, where requests are judged and credentials stay outside: once "
        f"{host} is allowed, git in a run uses https://{host}/ for git@{host}: by itself. Other "
        f"uses of SSH take another line: {other}",
        (host,),
    )


def _of_other_protocol(attempt: DeniedAttempt, target: Authority, scheme: RuleScheme) -> str:
    """Return what to say where it is not known what would have been spoken in a tunnel."""
    is_sure = scheme is RawScheme.TCP or target.port in WEB_PORTS
    if is_sure or not _is_refused_tunnel(attempt):
        return ""
    entry = shlex.join((*_PROGRAM, f"{RawScheme.TCP.value}://{target}"))
    return f"If what is spoken there is neither TLS nor HTTP, that takes another line: {entry}"


@lru_cache(maxsize=_REMEMBERED)
def _entry_of(target: Authority, scheme: RuleScheme) -> str | None:
    """Return a target as `claude-proxy allow` takes it; None if a list cannot name it."""
    try:
        HostPattern.parse(target.host)
    except PatternError:
        return None
    usual = _USUAL_PORTS.get(scheme)
    text = str(target) if usual is None else str(target).removesuffix(f":{usual}")
    return text if scheme is Scheme.HTTPS else f"{scheme.value}://{text}"


def _of_request(host: str, attempt: DeniedAttempt) -> tuple[str, ...]:
    method, path = attempt.method, attempt.path
    if (push := push_path(path, attempt.query)) is not None:
        # What a push asks first is answered only where the push itself would be allowed.
        method, path = "POST", push
    if method not in METHODS or not _is_nameable(path):
        return ()
    return (host, "--method", method, "--path", path)


def _is_nameable(path: str) -> bool:
    """Return whether a list can name just this path."""
    if "*" in path or len(path) > _LONGEST_PATH:
        return False
    try:
        PathGlob.parse(path)
    except PatternError:
        return False
    return True


def _of_address(host: str, target: Authority, address: Address | None) -> Advice:
    if target.address is not None:
        return Advice(arguments=(host,))
    if address is None:
        return Advice("If it is meant to lead there, name the address in `addresses` of its rule.")
    return Advice(arguments=(host, "--address", text_of(address)))
