"""Converter of sandbox-runtime's settings (`~/.srt-settings.json`).

Law kept: no quiet downgrade. The network's lists become entries; every other key is a remark that
says what does the same here. Pure.
"""

from collections.abc import Mapping

from claude_proxy.config.imports import domain_entries
from claude_proxy.config.imports.draft import NOT_CARRIED, Draft
from claude_proxy.config.imports.json_text import JsonText
from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.policy.location import Location
from claude_proxy.wire.address import Network

_LISTS = ("allowedDomains", "deniedDomains", "deniedResolvedAddresses")
# Keys of `network` that need nothing: the strict list is all there is here.
_SILENT = frozenset({*_LISTS, "deniedDomainReasons", "strictAllowlist"})
NETWORK_KEYS: Mapping[str, tuple[str, str]] = {
    "allowAllUnixSockets": ("Unix sockets of the machine", "they stay outside of a sandbox"),
    "allowLocalBinding": ("listening on loopback", "it is possible in a sandbox, on its own"),
    "allowMachLookup": ("services of macOS", "see --help of run for what a profile allows"),
    "allowUnixSockets": ("Unix sockets of the machine", "they stay outside of a sandbox"),
    "filterRequest": ("a program that judges requests", "limit entries by methods and paths"),
    "httpProxyPort": ("another proxy that filters", "import the list of that proxy as well"),
    "mitmProxy": ("another proxy for some domains", "use --upstream-proxy"),
    "parentProxy": ("the proxy of a company", "use --upstream-proxy"),
    "socksProxyPort": ("another proxy that filters", "import the list of that proxy as well"),
    "tlsTerminate": (
        "TLS, which is always opened here",
        "write tls: passthrough in the entry of a host whose client takes no other certificate",
    ),
}
FILESYSTEM_KEYS: Mapping[str, str] = {
    "allowWrite": "the project can be written; for more use --allow-rw PATH or a profile",
    "denyRead": "a sandbox shows nothing of the home but what its profile names",
    "denyWrite": "use read_only in .claude-proxy.yaml, or protect in a profile",
    "allowRead": "use --allow-ro PATH or a profile",
}
_FILES = "see --allow-ro, --allow-rw and profiles"


def convert(text: str, *, name: str, plain_http: bool = False) -> Draft:
    """Return the policy of a settings file; ConfigError if it is not one."""
    draft = Draft(name, "srt")
    file = JsonText(text, name)
    network = file.table("network")
    allowed = domain_entries.read(file.texts("network", "allowedDomains"), draft, denied=False)
    denied = domain_entries.read(file.texts("network", "deniedDomains"), draft, denied=True)
    addresses = _addresses(file, draft)
    domain_entries.convert(allowed, denied, draft, plain_http=plain_http, addresses=addresses)
    note_keys(file, network, ("network",), draft)
    for key, value in file.root.items():
        if key != "network" and not _is_off(value):
            note_other(file, key, draft)
    return draft


def _addresses(file: JsonText, draft: Draft) -> list[tuple[Network, Location]]:
    found = []
    for text, source in file.texts("network", "deniedResolvedAddresses"):
        try:
            found.append((domain_entries.network_of(text), source))
        except ValueError:
            what = f"{quoted(text)} is neither an address nor a network"
            draft.remark(NOT_CARRIED, what, source, 'write it like "10.0.0.0/8"')
    return found


def note_keys(
    file: JsonText, table: Mapping[str, object], path: tuple[str, ...], draft: Draft
) -> None:
    """Note the keys of a network that are no lists of hosts."""
    for key, value in table.items():
        if key in _SILENT or _is_off(value):
            continue
        what, fix = NETWORK_KEYS.get(key, ("it has no counterpart here", "see the reference"))
        draft.remark(NOT_CARRIED, f"{'.'.join((*path, key))}: {what}", file.source(*path, key), fix)


def _is_off(value: object) -> bool:
    return value is False or value in (None, [], {})


def note_other(file: JsonText, key: str, draft: Draft, path: tuple[str, ...] = ()) -> None:
    """Note a part of the settings that is not about the network."""
    here = (*path, key)
    if key == "filesystem":
        for each, value in file.table(*here).items():
            if not _is_off(value):
                what = f"{'.'.join((*here, each))}: files are shown by `run`, not by a policy"
                fix = FILESYSTEM_KEYS.get(each, _FILES)
                draft.remark(NOT_CARRIED, what, file.source(*here, each), fix)
        return
    if key == "credentials":
        fix = "bind them to hosts under credentials in the policy"
        what = f"{'.'.join(here)}: secrets are bound by the policy's owner"
        draft.remark(NOT_CARRIED, what, file.source(*here), fix)
        return
    what = f"{'.'.join(here)}: it is not about hosts"
    draft.remark(NOT_CARRIED, what, file.source(*here), "see the options of `claude-proxy run`")
