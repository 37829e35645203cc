"""Clients that read only the system's certificates find the proxy's CA there, beside its roots."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from claude_proxy.sandbox.plan.model import HostFacts, Mount, MountKind, PathInfo, PathKind
from claude_proxy.sandbox.plan.mount_layout import Layout
from claude_proxy.sandbox.plan.trust_store import BUNDLES, add_trust_store
from claude_proxy.trust.certificates import make_authority
from claude_proxy.trust.subject_hash import subject_hash
from tests.sandbox.boxes import Paths, paths, some_facts

CERTIFICATE = make_authority(datetime.now(UTC), "host", None).certificate_pem()
SHOWN = {"ca.pem": CERTIFICATE, "bundle.pem": b"roots and CA"}
CERTS = Path("/etc/ssl/certs")
BUNDLE = "/run/claude-proxy/bundle.pem"
FEDORAS = Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem")


def a_layout(*shown: Path) -> Layout:
    layout = Layout()
    layout.put(Mount(MountKind.EMPTY, Path("/etc"), sealed=True))
    for path in shown:
        layout.put(Mount(MountKind.READ, path, path))
    return layout


def mounts_of(layout: Layout) -> dict[Path, Mount]:
    return {mount.at: mount for mount in layout.mounts()}


def facts(names: dict[str, str | None] | None = None, found: Paths | None = None) -> HostFacts:
    return some_facts(found, shown=SHOWN, certificates={CERTS: names or {}})


@pytest.mark.parametrize("path", [path for path in BUNDLES if path.is_relative_to("/etc")])
def test_every_place_of_a_bundle_shows_that_of_the_run(path: Path) -> None:
    layout = a_layout()

    add_trust_store(layout, facts())

    assert mounts_of(layout)[path] == Mount(MountKind.LINK, path, BUNDLE)


def test_a_directory_of_certificates_keeps_everything_and_has_the_ca_by_its_hash() -> None:
    layout = a_layout(CERTS)
    names = {"a1b2c3d4.0": "Root.pem", "Root.pem": "/usr/share/Root.crt", "own.pem": None}

    add_trust_store(layout, facts(names))

    found = mounts_of(layout)
    assert (found[CERTS].kind, found[CERTS].sealed) == (MountKind.EMPTY, True)
    assert found[CERTS / "a1b2c3d4.0"].source == "Root.pem"
    assert found[CERTS / "Root.pem"].source == "/usr/share/Root.crt"
    original = Path(str(found[CERTS / "own.pem"].source)).parent
    assert (found[original].kind, found[original].source) == (MountKind.READ, CERTS)
    own = found[CERTS / f"{subject_hash(CERTIFICATE)}.0"]
    assert layout.files[str(found[CERTS / str(own.source)].source)] == CERTIFICATE
    assert found[CERTS / "ca-certificates.crt"].source == BUNDLE


def test_another_root_of_the_same_hash_stays() -> None:
    layout = a_layout(CERTS)
    hashed = subject_hash(CERTIFICATE)

    add_trust_store(layout, facts({f"{hashed}.0": "Other.pem"}))

    found = mounts_of(layout)
    assert found[CERTS / f"{hashed}.0"].source == "Other.pem"
    assert found[CERTS / f"{hashed}.1"].source == "claude-proxy.pem"


def test_a_bundle_deep_in_a_directory_of_the_host_is_covered() -> None:
    layout = a_layout(Path("/etc/pki/ca-trust"))

    add_trust_store(layout, facts(found=paths(files=(FEDORAS,))))

    covered = mounts_of(layout)[FEDORAS]
    assert covered.kind is MountKind.BLANK
    assert layout.files[str(covered.source)] == SHOWN["bundle.pem"]


def test_a_link_to_a_bundle_is_left_and_its_target_covered() -> None:
    link = Path("/etc/pki/tls/certs/ca-bundle.crt")
    layout = a_layout(Path("/etc/pki/tls/certs"), Path("/etc/pki/ca-trust"))
    found = paths(files=(FEDORAS,))
    found[link] = PathInfo(PathKind.FILE, FEDORAS, str(FEDORAS))

    add_trust_store(layout, facts(found=found))

    assert link not in mounts_of(layout)
    assert mounts_of(layout)[FEDORAS].kind is MountKind.BLANK


def test_nothing_is_created_in_a_directory_of_the_host() -> None:
    layout = a_layout(Path("/etc/ssl"))

    add_trust_store(layout, facts())

    assert Path("/etc/ssl/cert.pem") not in mounts_of(layout)


def test_a_run_without_a_proxy_trusts_what_the_host_trusts() -> None:
    layout = a_layout(CERTS)
    before = layout.mounts()

    add_trust_store(layout, some_facts(shown={}, certificates={CERTS: {"Root.pem": None}}))

    assert layout.mounts() == before


def test_a_directory_with_more_names_than_bwrap_takes_is_shown_as_it_is() -> None:
    layout = a_layout(CERTS)

    add_trust_store(layout, facts({f"{number}.pem": None for number in range(5000)}))

    assert mounts_of(layout)[CERTS].kind is MountKind.READ
