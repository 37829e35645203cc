"""System trust store of a sandbox: the proxy's CA beside the system's roots, wherever clients look.

Many clients read no variable: GnuTLS programs such as wget, Go, curl of other builds. So the bundle
is what the system's own files show inside, and the CA is in the directories that OpenSSL searches
by hash and that p11-kit reads. A directory of the host is read-only, so it is assembled again in an
empty one. Pure. Law kept: default-deny: a run without our proxy trusts what the host trusts.
"""

from collections.abc import Mapping
from pathlib import Path

from claude_proxy.sandbox.plan.environment import BUNDLE, CERTIFICATE, INSIDE
from claude_proxy.sandbox.plan.model import HostFacts, Mount, MountKind, PathKind
from claude_proxy.sandbox.plan.mount_layout import Layout
from claude_proxy.trust.subject_hash import subject_hash

# Where distributions keep their roots, and programs built for them look.
BUNDLES = tuple(
    Path(name)
    for name in (
        "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine, NixOS
        "/etc/ssl/certs/ca-bundle.crt",  # NixOS, and a link on Fedora
        "/etc/ssl/cert.pem",  # Alpine, the BSDs, OpenSSL's default
        "/etc/ssl/ca-bundle.pem",  # openSUSE
        "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
        "/etc/pki/tls/cert.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ca-certificates/extracted/tls-ca-bundle.pem",  # Arch
        "/usr/lib/ssl/cert.pem",  # OpenSSL's default on Debian
    )
)
# Certificates as files of their own: by subject hash for OpenSSL, by any name for p11-kit.
DIRECTORIES = tuple(
    Path(name)
    for name in (
        "/etc/ssl/certs",
        "/etc/pki/tls/certs",
        "/etc/pki/ca-trust/source/anchors",
        "/etc/ca-certificates/trust-source/anchors",
    )
)

_ORIGINALS = INSIDE / "system"  # the host's directories, which the assembled ones link to
_OWN_NAME = "claude-proxy.pem"
_MOST_NAMES = 4000  # bwrap takes 9000 arguments, three for each link


def add_trust_store(layout: Layout, facts: HostFacts) -> None:
    """Put the bundle and the CA of the run where the system's programs look for roots."""
    if BUNDLE.name not in facts.shown:
        return
    room = _MOST_NAMES
    for directory in DIRECTORIES:
        names = facts.certificates.get(directory, {})
        if names and len(names) <= room and _is_shown_as_is(layout, directory):
            room -= len(names)
            _assemble(layout, facts, directory, names)
    for path in BUNDLES:
        _show_bundle(layout, facts, path)


def _is_shown_as_is(layout: Layout, directory: Path) -> bool:
    nearest = layout.nearest(directory)
    return nearest is not None and nearest.kind is MountKind.READ


def _assemble(
    layout: Layout, facts: HostFacts, directory: Path, names: Mapping[str, str | None]
) -> None:
    """Create a directory with everything that the host's has, and the CA."""
    original = _ORIGINALS / "-".join(directory.parts[1:])
    layout.put(Mount(MountKind.READ, original, facts.paths[directory].real))
    layout.put(Mount(MountKind.EMPTY, directory, mode="0755", sealed=True))
    for name, link in names.items():
        # A relative link counts from where it is, so it is copied and not linked to.
        layout.put(Mount(MountKind.LINK, directory / name, link or str(original / name)))
    certificate = facts.shown[CERTIFICATE.name]
    layout.add_file(directory / _OWN_NAME, certificate)
    if certificate:  # a dry run has none
        hashed = subject_hash(certificate)
        free = next(n for n in range(len(names) + 1) if f"{hashed}.{n}" not in names)
        layout.put(Mount(MountKind.LINK, directory / f"{hashed}.{free}", _OWN_NAME))


def _show_bundle(layout: Layout, facts: HostFacts, path: Path) -> None:
    holder = layout.nearest(path.parent)
    if holder is not None and holder.kind is MountKind.EMPTY:
        layout.put(Mount(MountKind.LINK, path, str(BUNDLE)))
        return
    seen = facts.paths[path]
    if seen.kind is not PathKind.FILE:
        return  # nothing can be created in a directory of the host
    for mount in layout.showing(seen.real):
        at = mount.at / seen.real.relative_to(str(mount.source))
        is_original = at.is_relative_to(_ORIGINALS)
        if layout.nearest(at) is mount and mount.kind is MountKind.READ and not is_original:
            layout.cover_file(at, facts.shown[BUNDLE.name])
