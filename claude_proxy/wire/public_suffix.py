"""Public suffixes: names below which unrelated owners have theirs ("com", "github.io").

Default-deny: a wildcard over a public suffix would allow hosts that anybody can register. The list
is that of publicsuffix.org, with its ICANN and private sections, as publicsuffixlist ships it.
Pure.
"""

from enum import StrEnum
from functools import cache

from claude_proxy.deferred.packaged_files import packaged_text


class Suffix(StrEnum):
    """Who assigns the names below a public suffix."""

    REGISTRY = "registry"  # "com", "co.uk": anybody can register there
    PROVIDER = "provider"  # "github.io": the customers of one provider have names there
    UNLISTED = "unlisted"  # a single label that is not on the list; may be a newer registry


# Names that no registry sells: RFC 6761, RFC 6762 appendix G, RFC 8375, ICANN's ".internal".
_PRIVATE_USE = frozenset(
    (
        *("corp", "example", "home", "home.arpa", "internal", "intranet", "invalid"),
        *("lan", "local", "localhost", "private", "test"),
    )
)
# Names with customers' content directly below, or in every region below, that are missing from the
# list: it has only their regions (`*.run.app`), or nothing.
_ALSO_SHARED = """
0e.vc azurecontainer.io cloud.metacentrum.cz cloudera.site edgeone.app gitpod.io
nodebalancer.linode.com platform.sh *.platform.sh r2.cloudflarestorage.com replit.dev run.app
storage.googleapis.com
"""
# On the list, but allowed as a wildcard: it is one server, and the preset claude-optional allows
# reading the artifacts that Claude made there.
_ALSO_OWNED = frozenset({"frame.claudeusercontent.com"})
_PRIVATE_SECTION = "===BEGIN PRIVATE DOMAINS==="


def public_suffix(name: str) -> Suffix | None:
    """Return the kind of public suffix that the normalised `name` itself is, None if it is none.

    publicsuffixlist's own functions do not fit: they return the suffix of a name, and do not
    distinguish a registry's suffix from a provider's.
    """
    listed = _suffixes()
    # The list holds U-labels, a normalised name A-labels.
    shown = ".".join(map(_u_label, name.split("."))) if "xn--" in name else name
    if shown in _PRIVATE_USE or shown in _ALSO_OWNED or f"!{shown}" in listed:
        return None
    _, dot, parent = shown.partition(".")
    found = listed.get(shown) or listed.get(f"*.{parent}")
    return found if found or dot else Suffix.UNLISTED


def _u_label(label: str) -> str:
    # Not `idna.decode` for the whole name: it refuses an underscore in any label.
    if not label.startswith("xn--"):
        return label
    import idna  # noqa: PLC0415 - few names are not ASCII

    return idna.ulabel(label)


@cache
def _suffixes() -> dict[str, Suffix]:
    """Return the list as suffix -> kind; read once, at the first use."""
    text = packaged_text("publicsuffixlist", "public_suffix_list.dat")
    registries, _, providers = text.partition(_PRIVATE_SECTION)
    found = dict.fromkeys((*_ALSO_SHARED.split(), *_rules(providers)), Suffix.PROVIDER)
    found.update(dict.fromkeys(_rules(registries), Suffix.REGISTRY))
    return found


def _rules(text: str) -> list[str]:
    rules = [line for line in text.split("\n") if line and line[:2] != "//"]
    if "\0".join(rules).split() == ["\0".join(rules)]:
        return rules
    # A rule ends where white space begins (publicsuffix.org/list).
    return [rule.split(None, 1)[0] for rule in rules if rule.strip()]
