"""Specification of one run, and the files that its settings make visible in the sandbox.

Law kept: the sandbox cannot move its own wall. If the sandbox could write to the policy, or to a
file that the proxy reads or writes, the run is refused.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from claude_proxy.config import policy_files, preset_files
from claude_proxy.config.port_mappings import Forward, Published
from claude_proxy.config.settings import Settings
from claude_proxy.config.strict_yaml import nodes
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.policy.policy import Policy
from claude_proxy.sandbox import profiles
from claude_proxy.sandbox.plan import git_over_https
from claude_proxy.sandbox.plan.environment import ALLOWLIST, BUNDLE, CERTIFICATE, GIT_CONFIG
from claude_proxy.sandbox.plan.model import SandboxSpec
from claude_proxy.system import file_permissions
from claude_proxy.trust.published_certificate import CERTIFICATE_FILE, published_certificate
from claude_proxy.trust.roots import bundle_of, system_roots
from claude_proxy.wire.authority import Authority

SHOWN = (CERTIFICATE.name, BUNDLE.name, ALLOWLIST.name, GIT_CONFIG.name)  # in /run/claude-proxy

_HTTPS = 443
_CREDENTIALS = "credentials"  # a key of the file


class MissingError(ClaudeProxyError):
    """The machine lacks something that a run needs; `problems` are all of them."""

    def __init__(self, problems: Sequence[ClaudeProxyError]) -> None:
        first = problems[0]
        super().__init__(first.what, where=first.where, fix=first.fix)
        self.problems = tuple(problems)

    def lines(self) -> list[str]:
        """Return every problem's lines, one problem after the other."""
        return [line for problem in self.problems for line in problem.lines()]


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run, as the command line or `doctor` asks for it."""

    sandbox: SandboxSpec
    settings: Settings
    name: str | None = None
    join: str | None = None  # a running proxy, "unix:/path" or "127.0.0.1:9051"
    verify: bool = False
    show_plan: bool = False  # print how bwrap is started
    foreign: bool = False  # the running proxy is another program
    clone: bool = False  # COMMAND works in a clone of the project
    branch: str | None = None  # the one that is checked out there; None: as in the project
    forwards: tuple[Forward, ...] = ()
    published: tuple[Published, ...] = ()
    publishes_new: bool = False  # ports that programs inside begin to listen on

    @property
    def words(self) -> tuple[str, ...]:
        """The command as it is shown and recorded."""
        return ("shell",) if self.sandbox.shell else self.sandbox.command

    @property
    def maps_ports(self) -> bool:
        """Whether a port inside leads outside, or the other way round."""
        return bool(self.forwards) or self.publishes

    @property
    def publishes(self) -> bool:
        """Whether programs of this machine can reach servers inside."""
        return bool(self.published) or self.publishes_new

    @property
    def announces(self) -> bool:
        """Whether the relay may announce its run: only to a proxy on this machine."""
        if self.foreign:
            return False
        if self.join is None or self.join.startswith("unix:"):
            return True
        address = Authority.parse(self.join).address
        return address is not None and address.is_loopback


def shown_files(run_spec: RunSpec) -> dict[str, bytes]:
    """Return the contents of the files in /run/claude-proxy."""
    settings = run_spec.settings
    if not run_spec.sandbox.has_proxy:
        return {}
    path = settings.confdir / CERTIFICATE_FILE
    if run_spec.join is None or run_spec.foreign:
        _publish(run_spec)
    try:
        certificate = path.read_bytes()
    except OSError as error:
        raise ClaudeProxyError(
            f"the CA certificate of the proxy cannot be read: {(error.strerror or '').lower()}",
            where=str(path),
            fix="name the directory of the running proxy with --confdir",
        ) from error
    return {
        CERTIFICATE.name: certificate,
        BUNDLE.name: bundle_of(certificate, system_roots()),
        ALLOWLIST.name: _header(run_spec) + list_text(settings),
        GIT_CONFIG.name: b"" if run_spec.join is not None else _git_config(settings),
    }


def list_files(settings: Settings) -> dict[str, bytes]:
    """Return what a run shows of its policy, by name; ConfigError if the policy is invalid."""
    return {ALLOWLIST.name: list_text(settings), GIT_CONFIG.name: _git_config(settings)}


def _git_config(settings: Settings) -> bytes:
    """Return settings of Git for the hosts that the policy allows over HTTPS."""
    try:
        policy = policy_files.policy_file_for(settings).policy
    except ConfigError:
        return b""  # no proxy starts with it
    return git_over_https.git_config(git_over_https.https_hosts(policy))


def _publish(run_spec: RunSpec) -> None:
    """See to it that the CA is published; the run's own proxy looks whether it is any good."""
    confdir = run_spec.settings.confdir
    if run_spec.foreign or published_certificate(confdir) is None:
        # Imports cryptography, which takes long.
        from claude_proxy.trust.certificate_authority import (  # noqa: PLC0415
            CertificateAuthority,
        )

        CertificateAuthority.load_or_create(confdir)


def list_text(settings: Settings) -> bytes:
    """Return what a run shows of its policy, without credentials; ConfigError if it is invalid."""
    return _policy_text(settings) + _restrictions_text(settings)


def _header(run_spec: RunSpec) -> bytes:
    if run_spec.join is None:
        return b""
    return (
        f"# The proxy at {run_spec.join} was already running, and its own allowlist decides.\n"
        "# This is the allowlist that a proxy started here would use.\n"
    ).encode("utf-8", "backslashreplace")


def _policy_text(settings: Settings) -> bytes:
    if settings.policy is not None:
        from claude_proxy.config.policy_listing import (  # noqa: PLC0415 - of a named policy
            lines_of_policy,
        )

        lines = lines_of_policy(settings.policy, policy_files.policy_file_for(settings))
        return "".join(f"# {line}\n" for line in lines).encode()
    try:
        return without_credentials(settings.allowlist.read_bytes()) + _included_text(settings)
    except OSError as error:
        raise ConfigError(
            f"the allowlist cannot be read: {(error.strerror or '').lower()}",
            where=str(settings.allowlist),
            fix="name a readable allowlist file with --allowlist",
        ) from error


def _included_text(settings: Settings) -> bytes:
    """Return the rules that included files add to the allowlist, as comments."""
    try:
        policy = policy_files.policy_file_for(settings).policy
    except ConfigError:
        return b""  # no proxy starts with it
    shown = str(settings.allowlist)
    rules = [("allow", rule) for rule in policy.allow] + [("deny", rule) for rule in policy.deny]
    lines = [
        f"# {word} {rule}\n"
        for word, rule in rules
        if rule.source.file != shown and rule.source.preset not in preset_files.names()
    ]
    return "".join(("\n# From other files that it includes:\n", *lines)).encode() if lines else b""


def without_credentials(raw: bytes) -> bytes:
    """Return an allowlist's text without the section that names the sources of credentials."""
    text = raw.decode("utf-8", "replace")
    problems = nodes.Problems("allowlist")
    root = nodes.parse(text, problems)
    if problems or not isinstance(root, nodes.YamlMapping):
        return b""  # invalid: no proxy starts with it
    keys = [(name.line, name.text) for name, _ in root.entries]
    lines = text.split("\n")
    starts = [*(line for line, _ in keys), len(lines) + 1]
    for (start, name), end in reversed(list(zip(keys, starts[1:], strict=True))):
        if name == _CREDENTIALS and [line for line, _ in keys].count(start) > 1:
            return b"# Credentials are on the same line as other keys, so nothing is shown.\n"
        if name == _CREDENTIALS:
            lines[start - 1 : end - 1] = ["# Credentials are not shown.", ""]
    return "\n".join(lines).encode()


def _restrictions_text(settings: Settings) -> bytes:
    """Return the project's restrictions as comments: their file may not be visible inside."""
    if settings.narrowing is None:
        return b""
    lines = [f"{settings.narrowing} restricts it:"]
    lines += profiles.read_project_file(settings.narrowing).splitlines()
    return "".join(f"# {line}".rstrip() + "\n" for line in ("", *lines)).encode()


def refuse_reachable(run_spec: RunSpec) -> None:
    """Raise ConfigError if the sandbox could write its own policy, or a file of the proxy."""
    spec = run_spec.sandbox
    places = [(spec.project, None), *((path, "--allow-rw") for path in spec.allow_rw)]
    for place, option in places:
        _refuse_whole(Path(os.path.realpath(place)), place, option)
    for what, path in _guarded(run_spec.settings):
        steps = list(file_permissions.resolution_steps(path))
        for place, option in places:
            real = Path(os.path.realpath(place))
            if any(at.is_relative_to(real) for at in steps):
                raise ConfigError(
                    f"the sandbox could write to {what}",
                    where=f"{path}, in {f'{option} {place}' if option else place}",
                    fix=_fix_for(option, "that does not contain it"),
                )


def _refuse_whole(real: Path, place: Path, option: str | None) -> None:
    """Refuse `/` and the home, with a clearer error than one about a file in it."""
    whole = {
        Path("/"): "the whole file system",
        Path(os.path.realpath(Path("~").expanduser())): "your whole home directory",
    }.get(real)
    if whole is not None:
        where = f"{option} {place}" if option else str(place)
        fix = _fix_for(option, "that a run may write")
        raise ConfigError(f"{whole} would be writable", where=where, fix=fix)


def _fix_for(option: str | None, wanted: str) -> str:
    if option is not None:
        return f"name a directory below it {wanted}, or leave {option} out"
    return f"change to the directory of one project {wanted}, or name it with --dir"


def _guarded(settings: Settings) -> Iterator[tuple[str, Path]]:
    if settings.policy is None:
        yield "its own allowlist", settings.allowlist
    # All policy files: the next run may use another one than this run.
    for path in policy_files.guarded(settings):
        yield "its own policy", path
    if settings.upstream_ca is not None:
        yield "the CAs that it trusts for upstreams", settings.upstream_ca
    if settings.jsonl is not None:
        yield "its own audit log", settings.jsonl
    if settings.learn is not None:
        yield "the preset that is learned from it", settings.learn[1]
    if settings.ask_command is not None:
        yield "the program that answers for you", settings.ask_command


def verified_targets(run_spec: RunSpec) -> tuple[str, str]:
    """Return a target that the policy allows and one that it denies, if there are any."""
    from claude_proxy.sandbox.self_check import (  # noqa: PLC0415 - of --verify
        USUAL_ALLOWED,
        USUAL_DENIED,
    )

    if run_spec.join is not None:
        return USUAL_ALLOWED, USUAL_DENIED[0]  # the policy of a running proxy is unknown here
    policy = policy_files.load_for(run_spec.settings).policy
    plain = (f"{host}:{_HTTPS}" for host in policy.hosts() if not set(host) & set("*/"))
    allowed = next((found for found in (USUAL_ALLOWED, *plain) if _allows(policy, found)), None)
    denied = next((found for found in USUAL_DENIED if not _allows(policy, found)), None)
    return allowed or USUAL_ALLOWED, denied or USUAL_DENIED[-1]


def _allows(policy: Policy, target: str) -> bool:
    try:
        return policy.decide_connect(Authority.parse(target)).allowed
    except ValueError:
        return False
