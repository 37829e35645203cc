"""Table of options: every setting of `serve`, `gateway` and `run`, described once.

The command line, the variables, config.yaml, its JSON Schema and the reference page are made from
these rows. Pure.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from claude_proxy.config import option_values, port_mappings
from claude_proxy.config.option_kinds import (
    Choice,
    Flag,
    FreeText,
    ParsedText,
    PathText,
    ValueKind,
    WholeNumber,
)
from claude_proxy.config.providers import FORMS
from claude_proxy.config.settings import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    AuditFailure,
    GatewayMode,
    Limits,
    LogFormat,
)
from claude_proxy.config.worker_count import AUTOMATIC, parse_worker_count
from claude_proxy.config.worker_count import MOST as MOST_WORKERS
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.system.users import parse_user

DEFAULT_GATEWAY_PORT = 9000
AUTH_VARIABLE = "CLAUDE_PROXY_AUTH"  # USER:PASSWORD of the clients; never an argument

_VARIABLE_PREFIX = "CLAUDE_PROXY_"
_LIMITS = Limits()


class Subcommand(StrEnum):
    """The commands whose options config.yaml holds."""

    SERVE = "serve"
    GATEWAY = "gateway"
    RUN = "run"


class Topic(StrEnum):
    """The headings below which help and reference list the options."""

    COMMAND = "Command and project"
    SANDBOX = "Sandbox"
    LISTENING = "Listening"
    CLIENTS = "Clients"
    GATEWAY = "Gateway"
    POLICY = "Policy"
    PLACES = "Files and directories"
    OUTPUT = "Output"
    AUDIT = "Audit log"
    UPSTREAM = "Upstream"
    LIMITS = "Limits"


_ALL = (Subcommand.SERVE, Subcommand.GATEWAY, Subcommand.RUN)
_SERVE = (Subcommand.SERVE,)
_RUN = (Subcommand.RUN,)
_GATEWAY = (Subcommand.GATEWAY,)
_PROXIES = (Subcommand.SERVE, Subcommand.GATEWAY)
_FORWARDERS = (Subcommand.SERVE, Subcommand.RUN)

_HOST = ParsedText(
    "address", option_values.parse_listen_host, "give the address of an interface", "127.0.0.1"
)
_LISTEN = ParsedText(
    "listener",
    option_values.parse_listen,
    "write it like 127.0.0.1:9051, [::1]:9051 or unix:/path.sock",
    "127.0.0.1:9051",
    is_number=True,
)
_NETWORK = ParsedText(
    "cidr", option_values.parse_network, "write it like 10.0.0.0/8 or fd00::/8", "10.0.0.0/8"
)
_RESOLVE = ParsedText(
    "host:port:address",
    option_values.parse_resolve,
    "write it like git.corp.example:443:10.1.2.3 or [2001:db8::1]:443:[fd00::1]",
    "git.corp.example:443:10.1.2.3",
)
_FORWARD = ParsedText(
    "port=host:port",
    port_mappings.parse_forward,
    port_mappings.FORWARD_FIX,
    "5432=db.corp.example:5432",
)
_PUBLISH = ParsedText(
    "hostport:port", port_mappings.parse_publish, port_mappings.PUBLISH_FIX, "3000:3000"
)
_BASE = ParsedText(
    "url",
    option_values.parse_base,
    "write it like https://api.example.com/anthropic",
    "https://api.example.com/anthropic",
)
_MODEL = ParsedText(
    "model",
    option_values.parse_model,
    "write the name of a model, or REQUESTED=SENT",
    "claude-haiku-4-5",
)
_SIZE = ParsedText(
    "size",
    option_values.parse_size,
    "write it like 65536, 64K, 256M or 1G",
    "256M",
    is_number=True,
)
_BODY = ParsedText(
    "size",
    option_values.parse_body_size,
    "write it like 65536, 64K or 32M; 1K at least",
    "32M",
    is_number=True,
)
_WORKERS = ParsedText(
    "count",
    parse_worker_count,
    f"write a number from 1 to {MOST_WORKERS}, or auto",
    "auto",
    is_number=True,
)
_DURATION = ParsedText(
    "duration",
    option_values.parse_timeout,
    "write it like 30s, 500ms, 15m or 1h",
    "30s",
    is_number=True,
)
_DURATION_OR_ZERO = ParsedText(
    "duration",
    option_values.parse_duration,
    "write it like 30s, 500ms, 15m or 1h",
    "10s",
    is_number=True,
)
_PROXY = ParsedText(
    "url",
    option_values.parse_upstream_proxy,
    "write it like http://USER:PASSWORD@HOST:PORT",
    "http://proxy.corp.example:3128",
    is_secret=True,
)
_EXCEPTIONS = ParsedText(
    "hosts",
    option_values.parse_exceptions,
    "write it like .corp.example,10.0.0.0/8,localhost",
    ".corp.example",
    is_list=True,
)
_USER = ParsedText(
    "user",
    parse_user,
    "give the number or the name of a user; `id NAME` shows both",
    "agent",
    is_number=True,
)
_PATH = PathText()
_FILE = PathText(allows_directory=False)
_DIRECTORY = PathText(allows_file=False)
_PORT = WholeNumber(0, 65535)
_COUNT = WholeNumber(1)
_ON_OFF = Flag()


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionField:
    """One setting: its key in config.yaml, and the options and the variable that set it too."""

    key: str  # "audit_days", or "run.profile" below a section
    kind: ValueKind
    help: str
    topic: Topic
    commands: tuple[Subcommand, ...]
    default: Any = None  # as text where the kind parses one
    default_in_words: str = ""  # where no single value is the default
    repeatable: bool = False
    metavar: str | None = None
    has_variable: bool = True
    in_file: bool = True  # False: config.yaml cannot say it
    more_spellings: tuple[str, ...] = ()
    older_variable: str | None = None  # of the gateway alone; read from .env too
    help_beside: str | None = None  # of the gateway beside a proxy; None: as `help`
    completes: str | None = None  # what a shell completes it with

    @property
    def section(self) -> str:
        """The mapping of config.yaml that the key is in; empty: none."""
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The key without its section."""
        return self.key.rpartition(".")[2]

    @property
    def variable(self) -> str | None:
        """The environment variable that sets it."""
        if not self.has_variable:
            return None
        prefix = "GATEWAY_" if self.section == Subcommand.GATEWAY else ""
        return f"{_VARIABLE_PREFIX}{prefix}{self.name.upper()}"

    def parameter(self, command: Subcommand) -> str:
        """Return the name by which a command hands the value over."""
        beside = self.section == Subcommand.GATEWAY and command is not Subcommand.GATEWAY
        return f"gateway_{self.name}" if beside else self.name

    def option(self, command: Subcommand) -> str:
        """Return the option of a command that sets it."""
        return f"--{self.parameter(command).replace('_', '-')}"

    def help_in(self, command: Subcommand) -> str:
        """Return the help text of a command's option, without its default."""
        beside = self.section == Subcommand.GATEWAY and command is not Subcommand.GATEWAY
        return self.help_beside if beside and self.help_beside is not None else self.help


FIELDS: tuple[OptionField, ...] = (
    # --- run: the command, the project and the sandbox
    OptionField(
        key="run.proxy",
        kind=FreeText(),
        help="Join a running proxy, at 127.0.0.1:9051 or unix:/path.",
        topic=Topic.COMMAND,
        commands=_RUN,
        default_in_words="a proxy of its own",
        metavar="WHERE",
        has_variable=False,
    ),
    OptionField(
        key="run.proxy_auth_file",
        kind=_FILE,
        help="The USER:PASSWORD that the proxy of --proxy demands, in a file of yours alone (mode "
        f"0600). They may be in {AUTH_VARIABLE} instead; COMMAND gets neither.",
        topic=Topic.COMMAND,
        commands=_RUN,
        metavar="FILE",
        has_variable=False,
    ),
    OptionField(
        key="run.gateway",
        kind=_ON_OFF,
        help="Give COMMAND a gateway of its proxy, which holds the key; see --gateway-provider.",
        topic=Topic.COMMAND,
        commands=_RUN,
        default=False,
        has_variable=False,
    ),
    OptionField(
        key="run.name",
        kind=FreeText(),
        help="The name of the run in the audit log.",
        topic=Topic.COMMAND,
        commands=_RUN,
        default_in_words="after COMMAND",
        has_variable=False,
    ),
    OptionField(
        key="run.profile",
        kind=FreeText(),
        help="What COMMAND needs of the home: claude, gemini, codex, shell, or one of your own.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default_in_words="the one for COMMAND, else shell",
        has_variable=False,
        completes="profiles",
    ),
    OptionField(
        key="run.dir",
        kind=_PATH,
        help="The project directory, which is writable.",
        topic=Topic.COMMAND,
        commands=_RUN,
        default_in_words="the current one",
        metavar="DIR",
        has_variable=False,
    ),
    OptionField(
        key="run.clone",
        kind=Flag("--no-clone"),
        help="Work in a clone of the project, which is kept under the name of the run: nothing of "
        "the project itself is shown. Then see `changes`, `take` and `clones`.",
        topic=Topic.COMMAND,
        commands=_RUN,
        default=False,
        has_variable=False,
    ),
    OptionField(
        key="run.branch",
        kind=FreeText(),
        help="The branch of the clone; it is created from what is checked out if there is none.",
        topic=Topic.COMMAND,
        commands=_RUN,
        default_in_words="the one that is checked out",
        has_variable=False,
        in_file=False,
    ),
    OptionField(
        key="run.allow_ro",
        kind=_PATH,
        help="Show this path too, read-only; repeatable.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        repeatable=True,
        metavar="PATH",
        has_variable=False,
    ),
    OptionField(
        key="run.allow_rw",
        kind=_PATH,
        help="Show this path too, writable; repeatable.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        repeatable=True,
        metavar="PATH",
        has_variable=False,
    ),
    OptionField(
        key="run.pass_env",
        kind=FreeText(),
        help="Pass this variable to COMMAND; repeatable.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        repeatable=True,
        metavar="NAME",
        has_variable=False,
    ),
    OptionField(
        key="run.shell",
        kind=_ON_OFF,
        help="Run a shell instead of COMMAND.",
        topic=Topic.COMMAND,
        commands=_RUN,
        default=False,
        has_variable=False,
        in_file=False,
    ),
    OptionField(
        key="run.show_home",
        kind=_PATH,
        help="Show this file or directory of the home, read-only; repeatable. A directory that "
        "contains a place of secrets is refused.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        repeatable=True,
        metavar="PATH",
        has_variable=False,
    ),
    OptionField(
        key="run.share_agent_home",
        kind=_ON_OFF,
        help="Let COMMAND read and write your own settings, login and history of its agent, "
        "instead of those that are kept for the project.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default=False,
        has_variable=False,
    ),
    OptionField(
        key="run.no_network",
        kind=Flag("--network"),
        help="No proxy either: only loopback.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default=False,
        has_variable=False,
    ),
    OptionField(
        key="run.transparent",
        kind=Choice(("on", "off")),
        help="Let programs that ignore the proxy settings connect too: names that the policy "
        "allows get an address inside, which leads to the proxy (on).",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default="off",
    ),
    OptionField(
        key="run.forward",
        kind=_FORWARD,
        help="Listen inside on PORT, and connect each client to HOST:PORT through the proxy, for "
        "programs that know of no proxy; repeatable. A rule must allow it, with scheme tcp. As "
        "host:PORT a service of this machine's own loopback is let in, for this run alone.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        repeatable=True,
        metavar="[ADDRESS:]PORT=HOST:PORT",
        completes="forwards",
    ),
    OptionField(
        key="run.publish",
        kind=_PUBLISH,
        help="Let programs of this machine reach a server inside: HOSTPORT of this machine's "
        "loopback leads to PORT inside; 0 takes a free one; repeatable. auto publishes each port "
        "that a program inside begins to listen on, as the return of a login in the browser needs.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        repeatable=True,
        metavar="[ADDRESS:]HOSTPORT:PORT",
        completes="publishes",
    ),
    OptionField(
        key="run.allow_remote",
        kind=_ON_OFF,
        help="Permit a --publish beyond loopback: everyone who reaches the address reaches the "
        "server inside.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default=False,
        has_variable=False,
    ),
    OptionField(
        key="run.without_seccomp",
        kind=Flag("--with-seccomp"),
        help="Run without the system call filter, for a kernel without seccomp or a program that "
        "needs what it denies.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default=False,
        has_variable=False,
    ),
    OptionField(
        key="run.unix_sockets",
        kind=Choice(("none", "private")),
        help="The Unix sockets that COMMAND may use: none, or those that it makes itself, in /tmp, "
        "in its home or under abstract names (private).",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default_in_words="private",
        has_variable=False,
    ),
    OptionField(
        key="run.max_processes",
        kind=_COUNT,
        help="How many processes and threads there may be in the sandbox at a time.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default=4096,
        has_variable=False,
        metavar="NUMBER",
    ),
    OptionField(
        key="run.max_memory",
        kind=_SIZE,
        help="How much memory all processes of the sandbox may use together; if they use more, the "
        "largest is killed.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default_in_words="three quarters of the machine's",
        has_variable=False,
        metavar="SIZE",
    ),
    OptionField(
        key="run.tmpfs_size",
        kind=_SIZE,
        help="How large each file system in memory may grow: /tmp, /var/tmp, /dev/shm, /run and "
        "the home.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default_in_words="a quarter of the machine's memory",
        has_variable=False,
        metavar="SIZE",
    ),
    OptionField(
        key="run.skip_permissions",
        kind=_ON_OFF,
        help="Start COMMAND so that it does not ask before it acts, if its profile says how.",
        topic=Topic.COMMAND,
        commands=_RUN,
        default=False,
        has_variable=False,
    ),
    OptionField(
        key="run.verify",
        kind=_ON_OFF,
        help="First show by four checks that the proxy is the sandbox's only way out.",
        topic=Topic.SANDBOX,
        commands=_RUN,
        default=False,
        has_variable=False,
    ),
    OptionField(
        key="run.dry_run",
        kind=_ON_OFF,
        help="Print how bwrap would be started; start nothing.",
        topic=Topic.COMMAND,
        commands=_RUN,
        default=False,
        has_variable=False,
        in_file=False,
    ),
    OptionField(
        key="run.verbose",
        kind=_ON_OFF,
        help="Print how bwrap is started.",
        topic=Topic.COMMAND,
        commands=_RUN,
        default=False,
        has_variable=False,
        more_spellings=("-v",),
    ),
    # --- serve: where it listens
    OptionField(
        key="serve.listen",
        kind=_LISTEN,
        help="Listen here: ADDRESS:PORT or unix:PATH; repeatable.",
        topic=Topic.LISTENING,
        commands=_SERVE,
        default_in_words="--host and --port",
        repeatable=True,
        metavar="WHERE",
    ),
    OptionField(
        key="serve.host",
        kind=_HOST,
        help="The address to listen on; beside --listen only if it is given.",
        topic=Topic.LISTENING,
        commands=_SERVE,
        default_in_words=DEFAULT_HOST,
    ),
    OptionField(
        key="serve.port",
        kind=_PORT,
        help="The port to listen on, 0 takes a free one; beside --listen only if it is given.",
        topic=Topic.LISTENING,
        commands=_SERVE,
        default_in_words=str(DEFAULT_PORT),
    ),
    OptionField(
        key="serve.gateway",
        kind=_LISTEN,
        help="Listen here as the API itself, for ANTHROPIC_BASE_URL, and add the key to requests: "
        "ADDRESS:PORT or unix:PATH; repeatable. See `claude-proxy gateway --help`.",
        topic=Topic.GATEWAY,
        commands=_SERVE,
        repeatable=True,
        metavar="WHERE",
    ),
    # --- gateway: where it listens
    OptionField(
        key="gateway.host",
        kind=_HOST,
        help="The address to listen on; PROXY_HOST too.",
        topic=Topic.LISTENING,
        commands=_GATEWAY,
        default_in_words=DEFAULT_HOST,
        older_variable="PROXY_HOST",
    ),
    OptionField(
        key="gateway.port",
        kind=_PORT,
        help="The port to listen on, 0 takes a free one; PROXY_PORT too.",
        topic=Topic.LISTENING,
        commands=_GATEWAY,
        default_in_words=str(DEFAULT_GATEWAY_PORT),
        older_variable="PROXY_PORT",
    ),
    OptionField(
        key="gateway.uds",
        kind=_PATH,
        help="Listen on this Unix socket, and on no port.",
        topic=Topic.LISTENING,
        commands=_GATEWAY,
        metavar="PATH",
    ),
    # --- the gateway's upstream, key and bounds
    OptionField(
        key="gateway.upstream",
        kind=_BASE,
        help="The URL before /v1/messages to forward to: https, or http on this machine; "
        "PROXY_UPSTREAM_BASE too.",
        help_beside="The URL before /v1/messages that the gateway forwards to.",
        topic=Topic.GATEWAY,
        commands=_ALL,
        metavar="URL",
        older_variable="PROXY_UPSTREAM_BASE",
    ),
    OptionField(
        key="gateway.provider",
        kind=FreeText(),
        help="The provider to forward to: anthropic, or one of `providers` in config.yaml; "
        "PROXY_PROVIDER too.",
        help_beside="The provider that the gateway forwards to: anthropic, or one of `providers` "
        "in config.yaml.",
        topic=Topic.GATEWAY,
        commands=_ALL,
        metavar="NAME",
        older_variable="PROXY_PROVIDER",
        completes="providers",
    ),
    OptionField(
        key="gateway.mode",
        kind=Choice(tuple(mode.value for mode in GatewayMode)),
        help="What to take and give back: all that Claude Code needs, unchanged (claude), or one "
        "plain call and none of the provider's own text (strict).",
        help_beside="What the gateway takes and gives back: all that Claude Code needs (claude), "
        "or one plain call (strict).",
        topic=Topic.GATEWAY,
        commands=_ALL,
        default_in_words=GatewayMode.CLAUDE.value,
    ),
    OptionField(
        key="gateway.model",
        kind=_MODEL,
        help="Send this model to the upstream, whichever was requested; or REQUESTED=SENT, "
        "repeatable. PROXY_DEFAULT_MODEL too.",
        help_beside="Send this model to the upstream, whichever was requested; or REQUESTED=SENT, "
        "repeatable.",
        topic=Topic.GATEWAY,
        commands=_ALL,
        repeatable=True,
        metavar="NAME",
        older_variable="PROXY_DEFAULT_MODEL",
    ),
    OptionField(
        key="gateway.timeout",
        kind=_DURATION,
        help="How long the upstream may be silent: 1s to 600s, in strict mode to 300s; "
        "PROXY_TIMEOUT too.",
        topic=Topic.GATEWAY,
        commands=_GATEWAY,
        default_in_words="600s, in strict mode 30s",
        metavar="DURATION",
        older_variable="PROXY_TIMEOUT",
    ),
    OptionField(
        key="gateway.key_file",
        kind=_FILE,
        help="The file that holds the key; it must be yours alone (mode 0600).",
        help_beside="The file that holds the gateway's key; it must be yours alone (mode 0600).",
        topic=Topic.GATEWAY,
        commands=_ALL,
        metavar="FILE",
    ),
    OptionField(
        key="gateway.key_env",
        kind=FreeText(),
        help="The variable that holds the key.",
        help_beside="The variable that holds the gateway's key.",
        topic=Topic.GATEWAY,
        commands=_ALL,
        default_in_words="PROXY_API_KEY; with --provider anthropic ANTHROPIC_API_KEY too",
        metavar="NAME",
    ),
    OptionField(
        key="gateway.key_command",
        kind=FreeText(),
        help="The command that prints the key, split as a shell would and run without one.",
        topic=Topic.GATEWAY,
        commands=_GATEWAY,
        metavar="COMMAND",
    ),
    OptionField(
        key="gateway.key_keyring",
        kind=FreeText(),
        help="The entry of the system's keyring that holds the key.",
        topic=Topic.GATEWAY,
        commands=_GATEWAY,
        metavar="SERVICE:USER",
    ),
    OptionField(
        key="gateway.key_systemd",
        kind=FreeText(),
        help="The credential of the service manager that holds the key (LoadCredential=).",
        help_beside="The credential of the service manager that holds the gateway's key "
        "(LoadCredential=).",
        topic=Topic.GATEWAY,
        commands=_ALL,
        metavar="NAME",
    ),
    OptionField(
        key="gateway.form",
        kind=Choice(tuple(form.value for form in FORMS)),
        help="How the key is sent; auto: Anthropic's API keys as x-api-key, all others as bearer.",
        topic=Topic.GATEWAY,
        commands=_GATEWAY,
        default_in_words="the provider's, else auto",
    ),
    OptionField(
        key="gateway.token_file",
        kind=_FILE,
        help="Demand the token in this file of TCP callers; it must be yours alone (mode 0600).",
        help_beside="Demand the token in this file of the gateway's TCP callers; it must be yours "
        "alone (mode 0600).",
        topic=Topic.GATEWAY,
        commands=_PROXIES,
        metavar="FILE",
    ),
    OptionField(
        key="gateway.new_token",
        kind=_ON_OFF,
        help="Make a token for this run, demand it of TCP callers, and print the variables that "
        "they need.",
        topic=Topic.GATEWAY,
        commands=_GATEWAY,
        default=False,
    ),
    OptionField(
        key="gateway.max_requests_per_minute",
        kind=_COUNT,
        help="How many requests may go through in a minute; more are answered 429.",
        topic=Topic.GATEWAY,
        commands=_GATEWAY,
        metavar="COUNT",
    ),
    OptionField(
        key="gateway.max_tokens_per_day",
        kind=_COUNT,
        help="How many tokens, in and out, may be used up in a day (UTC); then 429.",
        topic=Topic.GATEWAY,
        commands=_GATEWAY,
        metavar="COUNT",
    ),
    OptionField(
        key="gateway.max_body",
        kind=_BODY,
        help="How large the body of a request may be; a larger one is answered 413.",
        topic=Topic.GATEWAY,
        commands=_GATEWAY,
        default_in_words="32M",
        metavar="SIZE",
    ),
    OptionField(
        key="gateway.keep_retry_after",
        kind=_ON_OFF,
        help="Pass on the upstream's retry-after in strict mode, which otherwise passes on none "
        "of its header fields.",
        topic=Topic.GATEWAY,
        commands=_GATEWAY,
        default=False,
    ),
    # --- who may use it
    OptionField(
        key="socket_uid",
        kind=_USER,
        help="Serve only clients of this user, by number or name, on Unix sockets; repeatable. "
        "For another user than your own the socket's mode is 0666 and the proxy itself checks who "
        "connects.",
        topic=Topic.CLIENTS,
        commands=_PROXIES,
        default_in_words="the user who runs the proxy",
        repeatable=True,
        metavar="USER",
    ),
    OptionField(
        key="serve.unlink_socket",
        kind=_ON_OFF,
        help="Remove the file of a Unix socket once its first client has sent something; where the "
        "socket is mounted, it stays usable.",
        topic=Topic.LISTENING,
        commands=_SERVE,
        default=False,
    ),
    OptionField(
        key="serve.proxy_auth_file",
        kind=_FILE,
        help="Demand the USER:PASSWORD in this file of TCP clients; it must be yours alone (mode "
        f"0600). They may be in {AUTH_VARIABLE} instead.",
        topic=Topic.CLIENTS,
        commands=_SERVE,
        metavar="FILE",
    ),
    OptionField(
        key="serve.workers",
        kind=_WORKERS,
        help="How many processes share the port, 1 to 64, or auto; one serves one core (more than "
        "1: Linux only).",
        topic=Topic.LIMITS,
        commands=_SERVE,
        default=AUTOMATIC,
        default_in_words="auto: 1, or up to 4 where other machines are let in",
        metavar="COUNT",
    ),
    # --- the policy and the files
    OptionField(
        key="allowlist",
        kind=_PATH,
        help="The allowlist file.",
        topic=Topic.POLICY,
        commands=_ALL,
        default_in_words="allowlist.yaml in --confdir, else the shipped one",
        metavar="FILE",
    ),
    OptionField(
        key="policy",
        kind=FreeText(),
        help="The policy by name, instead of the allowlist; `claude-proxy policies` lists them.",
        topic=Topic.POLICY,
        commands=_ALL,
        metavar="NAME",
        completes="policies",
    ),
    OptionField(
        key="learn",
        kind=_FILE,
        help="Let everything through that no deny rule covers, and write the hosts into this "
        "preset file.",
        topic=Topic.POLICY,
        commands=_FORWARDERS,
        metavar="FILE",
    ),
    OptionField(
        key="learn_deny",
        kind=_FILE,
        help="Write the hosts that are denied into this preset file.",
        topic=Topic.POLICY,
        commands=_FORWARDERS,
        metavar="FILE",
    ),
    OptionField(
        key="ask",
        kind=_ON_OFF,
        help="Hold a request that no rule covers until you have answered, in `claude-proxy ask` or "
        "by --ask-command. A denial still wins.",
        topic=Topic.POLICY,
        commands=_FORWARDERS,
        default=False,
    ),
    OptionField(
        key="ask_timeout",
        kind=_DURATION,
        help="How long a request waits for your answer, before it is denied. A later answer serves "
        "the next try of it.",
        topic=Topic.POLICY,
        commands=_FORWARDERS,
        default="30s",
        metavar="TIME",
    ),
    OptionField(
        key="ask_command",
        kind=_FILE,
        help="A program that answers: it gets a question as JSON on its standard input, and prints "
        '{"answer": "once"}, or another answer. Whatever else it does denies.',
        topic=Topic.POLICY,
        commands=_FORWARDERS,
        metavar="PROGRAM",
    ),
    OptionField(
        key="confdir",
        # A system's service has its CA where others may not list, but may read what they know of.
        kind=PathText(allows_file=False, must_be_listable=False),
        help="The directory of config.yaml, the allowlist and the CA.",
        topic=Topic.PLACES,
        commands=_ALL,
        default_in_words="~/.config/claude-proxy",
        metavar="DIR",
        in_file=False,  # the file is in there
    ),
    OptionField(
        key="cadir",
        kind=_DIRECTORY,
        help="The directory of the CA, if not --confdir.",
        topic=Topic.PLACES,
        commands=_PROXIES,
        metavar="DIR",
        # `env`, `ca` and `run` would not read them, and make a CA of their own.
        has_variable=False,
        in_file=False,
    ),
    OptionField(
        key="statedir",
        kind=_DIRECTORY,
        help="The directory of the audit log.",
        topic=Topic.PLACES,
        commands=_ALL,
        default_in_words="~/.local/state/claude-proxy",
        metavar="DIR",
    ),
    # --- what is printed and recorded
    OptionField(
        key="quiet",
        kind=_ON_OFF,
        help="Print errors only.",
        topic=Topic.OUTPUT,
        commands=_PROXIES,
        default=False,
    ),
    OptionField(
        key="verbose",
        kind=_ON_OFF,
        help="Print connections and reasons too.",
        topic=Topic.OUTPUT,
        commands=_PROXIES,
        default=False,
    ),
    OptionField(
        key="log_format",
        kind=Choice(tuple(form.value for form in LogFormat)),
        help="The format of what is printed.",
        topic=Topic.OUTPUT,
        commands=_PROXIES,
        default=LogFormat.TEXT.value,
    ),
    OptionField(
        key="jsonl",
        kind=PathText(allows_directory=False, allows_dash=True),
        help="Write each audit event to this file as well, one JSON object a line; - is standard "
        "output.",
        topic=Topic.AUDIT,
        commands=_ALL,
        metavar="PATH",
    ),
    OptionField(
        key="record_query",
        kind=_ON_OFF,
        help="Keep the query of each URL in the audit log.",
        topic=Topic.AUDIT,
        commands=_ALL,
        default=False,
    ),
    OptionField(
        key="audit_failure",
        kind=Choice(tuple(choice.value for choice in AuditFailure)),
        help="What to do with a request whose decision cannot be recorded.",
        topic=Topic.AUDIT,
        commands=_ALL,
        default=AuditFailure.DENY.value,
    ),
    OptionField(
        key="audit_days",
        kind=_COUNT,
        help="How many days the audit log is kept.",
        topic=Topic.AUDIT,
        commands=_ALL,
        default=30,
        metavar="DAYS",
    ),
    OptionField(
        key="audit_size",
        kind=_SIZE,
        help="How large the audit log may grow before its oldest events are removed.",
        topic=Topic.AUDIT,
        commands=_ALL,
        default="256M",
        metavar="SIZE",
    ),
    OptionField(
        key="allow_remote",
        kind=_ON_OFF,
        help="Permit listening beyond loopback: everyone in --client who reaches it can use this "
        "proxy.",
        topic=Topic.CLIENTS,
        commands=_PROXIES,
        default=False,
    ),
    OptionField(
        key="client",
        kind=_NETWORK,
        help="Serve only clients on this network; repeatable.",
        topic=Topic.CLIENTS,
        commands=_PROXIES,
        default_in_words="loopback",
        repeatable=True,
        metavar="CIDR",
    ),
    # --- the way out
    OptionField(
        key="resolve",
        kind=_RESOLVE,
        help="Use ADDRESS for HOST:PORT and ask no resolver, as curl does; repeatable.",
        topic=Topic.UPSTREAM,
        commands=_ALL,
        repeatable=True,
        metavar="HOST:PORT:ADDRESS",
    ),
    OptionField(
        key="upstream_ca",
        kind=PathText(allows_directory=False, must_exist=True),
        help="Trust the CAs in this PEM file too when upstream certificates are verified.",
        topic=Topic.UPSTREAM,
        commands=_ALL,
        metavar="FILE",
    ),
    OptionField(
        key="upstream_proxy",
        kind=_PROXY,
        help="Connect through this proxy. Set one with a password by the variable or in "
        "config.yaml, as every user of the machine can read the arguments of a process.",
        topic=Topic.UPSTREAM,
        commands=_ALL,
        metavar="URL",
    ),
    OptionField(
        key="no_upstream_proxy",
        kind=_EXCEPTIONS,
        help="Connect to these directly, written as in NO_PROXY.",
        topic=Topic.UPSTREAM,
        commands=_ALL,
        default=(),
        metavar="HOSTS",
    ),
    OptionField(
        key="warm_upstreams",
        kind=_ON_OFF,
        help="Keep a connection open to an upstream that answered, for the next request there.",
        topic=Topic.UPSTREAM,
        commands=_ALL,
        default=True,
    ),
    # --- bounds
    OptionField(
        key="max_connections",
        kind=_COUNT,
        help="How many client connections may be open at once.",
        topic=Topic.LIMITS,
        commands=_ALL,
        default=_LIMITS.connections,
        metavar="COUNT",
    ),
    OptionField(
        key="max_head",
        kind=_SIZE,
        help="How large the head of a request or a response may be.",
        topic=Topic.LIMITS,
        commands=_ALL,
        default="64K",
        metavar="SIZE",
    ),
    OptionField(
        key="head_timeout",
        kind=_DURATION,
        help="How long the head of a request may take.",
        topic=Topic.LIMITS,
        commands=_ALL,
        default="30s",
        metavar="DURATION",
    ),
    OptionField(
        key="handshake_timeout",
        kind=_DURATION,
        help="How long a TLS handshake may take.",
        topic=Topic.LIMITS,
        commands=_ALL,
        default="30s",
        metavar="DURATION",
    ),
    OptionField(
        key="idle_timeout",
        kind=_DURATION,
        help="How long a connection may be silent; Claude Code waits 600 seconds.",
        topic=Topic.LIMITS,
        commands=_ALL,
        default="15m",
        metavar="DURATION",
    ),
    OptionField(
        key="connect_timeout",
        kind=_DURATION,
        help="How long connecting upstream may take.",
        topic=Topic.LIMITS,
        commands=_ALL,
        default="20s",
        metavar="DURATION",
    ),
    OptionField(
        key="grace",
        kind=_DURATION_OR_ZERO,
        help="How long running exchanges, and the COMMAND of a run, may go on after SIGTERM.",
        topic=Topic.LIMITS,
        commands=_ALL,
        default="10s",
        metavar="DURATION",
    ),
)


def fields_of(command: Subcommand) -> Iterator[OptionField]:
    """Yield the options that a command has."""
    return (field for field in FIELDS if command in field.commands)


def fields_in_section(section: str) -> Iterator[OptionField]:
    """Yield the keys of config.yaml at its top, or below a section's name."""
    return (field for field in FIELDS if field.section == section and field.in_file)


def default_of(field: OptionField) -> Any:
    """Return the value that an option has where nothing sets it."""
    if field.repeatable:
        return ()
    if isinstance(field.kind, ParsedText) and isinstance(field.default, str):
        return field.kind.parse(field.default)
    return field.default


def defaults(command: Subcommand) -> dict[str, Any]:
    """Return the value of each option of a command where nothing sets it."""
    return {field.parameter(command): default_of(field) for field in fields_of(command)}
