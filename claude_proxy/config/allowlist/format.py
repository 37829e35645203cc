"""Policy file format: one table of keys, types, defaults and examples.

The readers check keys by it; the JSON Schema and the reference page are generated from it. Pure.
"""

from collections.abc import Iterable
from enum import Enum, StrEnum, unique

from claude_proxy.deferred.data_classes import dataclass

type Where = frozenset["FileRole"]


class FileRole(Enum):
    """What a file of this format is for; it decides which keys the file may have."""

    POLICY = "a policy file"  # allowlist.yaml, policies/NAME.yaml, and the built-in ones
    INCLUDED = "an included file"
    PRESET = "a preset"  # presets/NAME.yaml, and the shipped ones
    PROJECT = "a project's file"  # .claude-proxy.yaml, which may only take away


@unique
class Kind(StrEnum):
    """The type of a value, in the words of the reference page."""

    TEXT = "text"
    DEFAULT = "`deny`, `ask` or `allow`"
    NETWORK = "`proxy`, `none` or `open`"
    PROFILE = "name of a profile"
    FILES = "list of paths"
    ALLOW = "list of allow entries"
    DENY = "list of deny entries"
    CREDENTIALS = "list of credentials"
    ANTHROPIC = "list of API restrictions"
    PRESET = "name of a preset"
    HOST = "host pattern"
    HOSTS = "list of host patterns"
    NAMED_HOST = "host pattern, no address"
    NAMED_HOSTS = "list of host patterns, no addresses"
    PORTS = "list of ports"
    TLS_PORTS = "list of ports, not 80"
    SCHEME = "`https`, `http` or `tcp`"
    METHODS = "list of methods"
    PATHS = "list of path patterns"
    TLS = "`intercept` or `passthrough`"
    NETWORKS = "list of addresses or networks"
    YES_NO = "`true` or `false`"
    NAME = "name in lower case"
    FORM = "`auto`, `x-api-key`, `bearer`, `basic`, `field` or `postgres`"
    SERVER_TLS = "`verify` or `none`"
    LOGINS = "list of `scram-sha-256`, `md5` and `password`"
    FIELD = "name of a header field"
    USER = "user name"
    SOURCE = "source"
    PLACEHOLDER = "text of 16 to 256 visible characters"
    VARIABLES = "list of environment variables"
    PIN = "`learn`, a source, a hash or a list of hashes"
    VARIABLE = "environment variable"
    PATH = "path from `/` or `~/`"
    JSON_KEY = "dotted path"
    COMMAND = "list of arguments"
    DURATION = "time, such as `5m`"
    PRINTABLE = "printable text"
    UNIT = "name of a systemd credential"
    API_PATHS = "`all` or a list of path patterns"
    MODELS = "`all` or a list of names"
    WORDS = "`all`, `none` or a list of names"
    TOOLS = "`all`, `none` or a list of tools"
    REACH = "`all`, `none`, `allowlisted` or a list of hosts"
    SIZE = "size, such as `32M`"


@dataclass(frozen=True, slots=True)
class Field:
    """One key: its type, what its absence means, what it is for, and an example value."""

    name: str
    kind: Kind
    help: str
    default: str = ""  # what its absence means; "": nothing to say
    example: str = ""
    where: Where = frozenset()  # of a key of the file: which files may have it


_OWNERS: Where = frozenset({FileRole.POLICY, FileRole.INCLUDED})
_POLICY: Where = frozenset({FileRole.POLICY})
_LISTS: Where = _OWNERS | {FileRole.PRESET}

FILE = (
    Field(
        "description",
        Kind.TEXT,
        "What the file is for, in one line.",
        example="Work at Acme",
        where=_LISTS,
    ),
    Field(
        "default",
        Kind.DEFAULT,
        "What happens to a host that no entry names. With ask a request waits until the owner has "
        "answered (`claude-proxy ask`), with allow every public host can be reached; private and "
        "metadata addresses still need an entry.",
        default="deny",
        example="deny",
        where=_POLICY,
    ),
    Field(
        "network",
        Kind.NETWORK,
        "How `claude-proxy run` connects the sandbox: through the proxy, not at all, or to this "
        "machine's own network, unfiltered.",
        default="proxy",
        example="proxy",
        where=_POLICY,
    ),
    Field(
        "profile",
        Kind.PROFILE,
        "Which profile `claude-proxy run` uses: what the sandbox sees of the home directory.",
        default="the profile of the command",
        example="shell",
        where=_POLICY,
    ),
    Field(
        "include",
        Kind.FILES,
        "Files whose entries are added; a relative path starts at this file's directory.",
        default="none",
        example="[common.yaml]",
        where=_OWNERS,
    ),
    Field(
        "allow",
        Kind.ALLOW,
        "What may be reached.",
        default="nothing",
        example='[{preset: claude}, docs.python.org, "*.example.com"]',
        where=_LISTS,
    ),
    Field(
        "deny",
        Kind.DENY,
        "What may not be reached. A denial always wins.",
        default="nothing",
        example="[gist.github.com]",
        where=_OWNERS | {FileRole.PROJECT},
    ),
    Field(
        "credentials",
        Kind.CREDENTIALS,
        "Secrets that are bound to hosts; the secret itself is kept elsewhere.",
        default="none",
        example="[{host: api.example.com, inject: bearer, from: {env: EXAMPLE_TOKEN}}]",
        where=_OWNERS,
    ),
    Field(
        "anthropic",
        Kind.ANTHROPIC,
        "What requests to hosts that speak the Messages API may ask for. A key that an entry "
        "does not have is taken from a wider entry, then from presets; what no entry limits is "
        "not limited.",
        default="no limits but those of presets",
        example='[{host: api.anthropic.com, models: ["claude-*"]}]',
        where=_LISTS,
    ),
)

_HOST = Field(
    "host",
    Kind.HOST,
    "example.com: that host; *.example.com: its subdomains at any depth; .example.com: both. "
    "Or an IP address, or a network such as 10.1.2.0/24. Required.",
    example="api.example.com",
)
_METHODS = Field(
    "methods", Kind.METHODS, "Which methods.", default="every method", example="[GET, HEAD]"
)
_PATHS = Field(
    "paths",
    Kind.PATHS,
    "Which paths: * matches one segment, ** at the end the rest. The query is not judged.",
    default="every path",
    example='["/v1/*/files", "/docs/**"]',
)
_NOTE = Field("note", Kind.TEXT, "A remark for readers.", example="reading only")

PRESET_ENTRY = (
    Field(
        "preset",
        Kind.PRESET,
        "The entries of a preset, shipped or your own; `claude-proxy presets` lists them.",
        example="github",
    ),
)
ALLOW = (
    _HOST,
    Field(
        "ports",
        Kind.PORTS,
        "Which ports.",
        default="443; with scheme http 80; with scheme tcp required",
        example="[443, 8443]",
    ),
    Field(
        "scheme",
        Kind.SCHEME,
        "Plain HTTP is allowed only where http is written. tcp allows bytes of any other protocol "
        "(SSH, databases) on the ports that it lists, other than 80 and 443: the host, the port "
        "and the address are judged, TLS must name the host, and HTTP is refused. No other entry "
        "implies it, and a host with a credential or with API restrictions cannot have it.",
        default="https",
        example="http",
    ),
    _METHODS,
    _PATHS,
    Field(
        "tls",
        Kind.TLS,
        "intercept decrypts and judges each request; passthrough judges the host alone, for "
        "clients that accept no other certificate. Other protocols than TLS need scheme: tcp.",
        default="intercept",
        example="passthrough",
    ),
    Field(
        "addresses",
        Kind.NETWORKS,
        "Private or otherwise special addresses that the host may resolve to.",
        default="public addresses only",
        example='["10.1.0.0/16"]',
    ),
    Field(
        "ask",
        Kind.YES_NO,
        "With true the entry allows nothing by itself: what it covers waits until the owner has "
        "answered, in `claude-proxy ask` or by --ask-command.",
        default="false",
        example="true",
    ),
    _NOTE,
)
DENY = (
    _HOST,
    Field("ports", Kind.PORTS, "Which ports.", default="every port", example="[8443]"),
    Field("scheme", Kind.SCHEME, "Which scheme.", default="every scheme", example="http"),
    _METHODS,
    _PATHS,
    _NOTE,
)
CREDENTIAL = (
    Field("host", Kind.NAMED_HOST, "The host that the secret is for.", example="api.example.com"),
    Field(
        "hosts",
        Kind.NAMED_HOSTS,
        "Instead of host: several.",
        example="[api.example.com, www.example.com]",
    ),
    Field(
        "ports",
        Kind.TLS_PORTS,
        "Which ports.",
        default="443; with inject postgres 5432",
        example="[8443]",
    ),
    Field("name", Kind.NAME, "What logs call it.", default="the first host", example="example"),
    Field(
        "inject",
        Kind.FORM,
        "The client sends a placeholder or nothing, and the secret is put in: auto (as Anthropic "
        "expects a key or an OAuth token), x-api-key, bearer, basic (with user), field (with "
        "field) or postgres (with user): the password of a database, whose host and port need an "
        "entry of allow with scheme: tcp.",
        example="bearer",
    ),
    Field(
        "field",
        Kind.FIELD,
        "With inject: field, the header field that holds the secret.",
        example="x-goog-api-key",
    ),
    Field(
        "user",
        Kind.USER,
        "With inject: basic or postgres, the user name.",
        example="x-access-token",
    ),
    Field(
        "database",
        Kind.TEXT,
        "With inject: postgres, the only database that may be opened.",
        default="the one that the client asks for",
        example="shop",
    ),
    Field(
        "tls",
        Kind.SERVER_TLS,
        "With inject: postgres, verify demands that the server offers TLS and proves its name; "
        "none speaks to it without TLS.",
        default="verify",
        example="verify",
    ),
    Field(
        "auth",
        Kind.LOGINS,
        "With inject: postgres, the ways to log in that the server may ask for. md5 and password "
        "show it more of the password than a proof; password needs tls: verify.",
        default="scram-sha-256",
        example="[scram-sha-256]",
    ),
    Field("from", Kind.SOURCE, "Where the secret is kept.", example="{env: EXAMPLE_TOKEN}"),
    Field(
        "placeholder",
        Kind.PLACEHOLDER,
        "What the client sends instead of the secret.",
        default="made from the name",
        example="placeholder-of-example-com",
    ),
    Field(
        "variables",
        Kind.VARIABLES,
        "What `claude-proxy run` sets to the placeholder.",
        default="none",
        example="[EXAMPLE_TOKEN]",
    ),
    Field(
        "pin",
        Kind.PIN,
        "Instead of inject: the client's own login passes and no other; learn takes the first "
        "that is used, `claude-proxy credentials hash` prints hashes.",
        example="learn",
    ),
)
SOURCE = (
    Field(
        "env", Kind.VARIABLE, "A variable of the proxy's own environment.", example="EXAMPLE_TOKEN"
    ),
    Field(
        "file",
        Kind.PATH,
        "A file that only you can read.",
        example="~/.config/example/token",
    ),
    Field("key", Kind.JSON_KEY, "With file: where in its JSON.", example="oauth.token"),
    Field(
        "command",
        Kind.COMMAND,
        "A program that prints it, with its arguments; no shell.",
        example="[pass, show, example]",
    ),
    Field(
        "refresh",
        Kind.DURATION,
        "With command: when to run it again.",
        default="5m",
        example="1h",
    ),
    Field(
        "keyring",
        Kind.PRINTABLE,
        "The system's keyring: the service; needs user.",
        example="example",
    ),
    Field("user", Kind.PRINTABLE, "With keyring: the user.", example="me"),
    Field(
        "systemd",
        Kind.UNIT,
        "The name of a credential that systemd loads (LoadCredential=).",
        example="example-token",
    ),
)
ANTHROPIC = (
    Field("host", Kind.HOST, "The host that speaks the Messages API.", example="api.anthropic.com"),
    Field(
        "hosts",
        Kind.HOSTS,
        "Instead of host: several.",
        example="[api.anthropic.com, api.example.com]",
    ),
    Field("ports", Kind.PORTS, "Which ports.", default="every port", example="[443]"),
    Field("paths", Kind.API_PATHS, "Which endpoints.", example="[/v1/messages]"),
    Field(
        "models",
        Kind.MODELS,
        "Which models; * matches any characters.",
        example='["claude-*"]',
    ),
    Field("beta", Kind.WORDS, "What anthropic-beta may list.", example='["oauth-*"]'),
    Field(
        "server_tools",
        Kind.TOOLS,
        "Which tools the API may run itself, by type without the date.",
        example="[web_search]",
    ),
    Field(
        "mcp_servers",
        Kind.REACH,
        "Which MCP servers the API may connect to; allowlisted: those that a client may reach "
        "itself.",
        example="[allowlisted, mcp.example.com]",
    ),
    Field(
        "sources",
        Kind.REACH,
        "From where the API may fetch images and documents.",
        example="allowlisted",
    ),
    Field("max_body", Kind.SIZE, "The size of a request body.", default="32M", example="32M"),
)


def names_of(fields: Iterable[Field]) -> tuple[str, ...]:
    """Return the names of some keys, in the table's order."""
    return tuple(field.name for field in fields)


def keys_of(role: FileRole) -> tuple[str, ...]:
    """Return the keys that a file may have at its top."""
    return names_of(field for field in FILE if role in field.where)
