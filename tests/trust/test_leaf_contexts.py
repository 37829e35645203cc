"""A client is shown a leaf for the judged name only, with a key that no file ever contained."""

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from claude_proxy.trust import leaf_contexts
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.leaf_contexts import LeafContexts


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    directory: Path = tmp_path_factory.mktemp("confdir")
    return CertificateAuthority.load_or_create(directory)


@pytest.fixture(scope="module")
def contexts(authority: CertificateAuthority) -> LeafContexts:
    return LeafContexts(authority)


def client_context(authority: CertificateAuthority, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate_path))
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def shake(
    shown: ssl.SSLContext | None,
    context: ssl.SSLContext,
    name: str,
    session: ssl.SSLSession | None = None,
) -> ssl.SSLObject:
    """Shake hands from memory; return the client's side."""
    assert shown is not None
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname=name, session=session)
    server = shown.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for turn in (client.do_handshake, server.do_handshake, lambda: client.read(1)):
            with suppress(ssl.SSLWantReadError):
                turn()
    return client


@pytest.mark.parametrize("host", ["example.com", "192.0.2.1", "2001:db8::1"])
def test_a_client_gets_a_leaf_for_the_judged_name(
    contexts: LeafContexts, authority: CertificateAuthority, host: str
) -> None:
    client = shake(contexts.context_for(host), client_context(authority), host)

    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    assert x509.load_der_x509_certificate(shown) == authority.leaf(host).certificate


def test_without_an_authority_there_is_nothing_to_show() -> None:
    assert LeafContexts().context_for("example.com") is None


def test_an_expired_authority_has_nothing_to_show(tmp_path: Path) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    authority = CertificateAuthority.load_or_create(tmp_path, clock=lambda: now[0])
    contexts = LeafContexts(authority)
    assert contexts.context_for("example.com") is not None

    now[0] += timedelta(days=5000)

    assert contexts.context_for("example.com") is None


def test_a_renewed_leaf_is_what_is_shown(tmp_path: Path) -> None:
    now = [datetime.now(UTC).replace(microsecond=0)]
    authority = CertificateAuthority.load_or_create(tmp_path, clock=lambda: now[0])
    contexts = LeafContexts(authority)
    first = contexts.context_for("example.com")
    assert contexts.context_for("example.com") is first

    now[0] += timedelta(days=4)  # half of a leaf's life is over

    assert contexts.context_for("example.com") not in (None, first)


def test_the_contexts_that_are_kept_are_bounded(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaf_contexts, "_KEPT", 2)
    contexts = LeafContexts(authority)
    first, second = contexts.context_for("a.example"), contexts.context_for("b.example")
    assert contexts.context_for("a.example") is first

    contexts.context_for("c.example")

    assert contexts.context_for("a.example") is first
    assert contexts.context_for("b.example") is not second


def test_no_key_of_a_leaf_is_on_a_disk_and_no_pipe_stays_open(
    authority: CertificateAuthority,
) -> None:
    before = {path: path.read_bytes() for path in authority.confdir.iterdir()}
    descriptors = len(list(Path("/dev/fd").iterdir()))

    assert LeafContexts(authority).context_for("disk.example") is not None

    assert {path: path.read_bytes() for path in authority.confdir.iterdir()} == before
    assert len(list(Path("/dev/fd").iterdir())) == descriptors


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_not_supported(contexts: LeafContexts, authority: CertificateAuthority) -> None:
    context = client_context(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")

    with pytest.raises(ssl.SSLError, match="unsupported protocol"):
        shake(contexts.context_for("example.com"), context, "example.com")


def test_a_session_ticket_is_valid_for_its_own_leaf_only(
    contexts: LeafContexts, authority: CertificateAuthority
) -> None:
    context = client_context(authority)
    context.check_hostname = False
    first = shake(contexts.context_for("a.example"), context, "a.example")

    again = shake(contexts.context_for("a.example"), context, "a.example", first.session)
    other = shake(contexts.context_for("b.example"), context, "b.example", first.session)

    assert (again.session_reused, other.session_reused) == (True, False)


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        (("h2", "http/1.1"), "h2"),
        (("http/1.1", "h2"), "h2"),
        (("spdy/3", "http/1.1"), "http/1.1"),
        (("spdy/3",), None),
        ((), None),
    ],
)
def test_the_servers_preferred_protocol_is_selected(
    contexts: LeafContexts,
    authority: CertificateAuthority,
    offers: tuple[str, ...],
    chosen: str | None,
) -> None:
    context = client_context(authority, *offers)

    client = shake(contexts.context_for("example.com"), context, "example.com")

    assert client.selected_alpn_protocol() == chosen
