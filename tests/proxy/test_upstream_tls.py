"""An upstream proves the judged name, and a session is resumed by its own client alone."""

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from claude_proxy.proxy.tls_records import TlsRecords, certificate_ends
from claude_proxy.proxy.tls_sessions import TlsSessions
from claude_proxy.proxy.upstream_tls import TlsFor, UpstreamHandshake, UpstreamTls
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.tls_peers import origin_context

TARGET = Authority.of("example.com", 443)
ALPN = (b"http/1.1",)


class Clocks:
    """Time, as it goes on and as the wall shows it."""

    def __init__(self, wall: float) -> None:
        self.now = 1000.0
        self.wall = wall


class World:
    """Origins by the name that they show, and TLS that trusts their CA."""

    def __init__(self, authority: CertificateAuthority) -> None:
        self.authority = authority
        self.clocks = Clocks(authority.leaf("example.com").renew_at.timestamp())
        self.sessions = TlsSessions(lambda: self.clocks.now, lambda: self.clocks.wall)
        self.tls = UpstreamTls(str(authority.certificate_path), sessions=self.sessions)
        self._origins: dict[str, ssl.SSLContext] = {}

    def origin(self, name: str = "example.com") -> ssl.SSLContext:
        if name not in self._origins:
            self._origins[name] = origin_context(self.authority, name, ("h2", "http/1.1"))
        return self._origins[name]

    def connect(
        self,
        owner: object = "a run",
        target: Authority = TARGET,
        alpn: tuple[bytes, ...] = ALPN,
        shown: str = "example.com",
        *,
        context: ssl.SSLContext | None = None,
    ) -> ssl.SSLObject:
        """Shake hands with an origin, and let it answer; ssl.SSLError if that fails."""
        handshake = TlsFor(self.tls, owner).begin(target, alpn)
        return _shaken(handshake, context or self.origin(shown))


def _shaken(handshake: UpstreamHandshake, context: ssl.SSLContext) -> ssl.SSLObject:
    origin = TlsRecords(context, server=True)
    done, data = handshake.shake(b""), b""
    while True:
        with suppress(ssl.SSLError):
            origin.shake(handshake.records.take())
        data = origin.take()
        if done:
            break
        done = handshake.shake(data)
    handshake.records.decrypt(data)  # the ticket
    return handshake.records.tls


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(tmp_path_factory.mktemp("confdir"))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def world(request: pytest.FixtureRequest, authority: CertificateAuthority) -> World:
    world = World(authority)
    for name in ("example.com", "other.example", "192.0.2.1"):
        world.origin(name).maximum_version = request.param
    return world


def test_a_session_is_resumed_by_its_own_client(world: World) -> None:
    first = world.connect()

    again, third = world.connect(), world.connect()

    assert (first.session_reused, again.session_reused, third.session_reused) == (False, True, True)
    assert again.selected_alpn_protocol() == "http/1.1"
    ends = world.authority.leaf("example.com").certificate.not_valid_after_utc.timestamp()
    assert certificate_ends(first) == certificate_ends(again) == ends


@pytest.mark.parametrize(
    "other",
    [
        lambda world: world.connect("another run"),
        lambda world: world.connect(target=Authority.of("example.com", 8443)),
        lambda world: world.connect(alpn=(b"h2", b"http/1.1")),
        lambda world: world.connect(target=Authority.of("192.0.2.1", 443), shown="192.0.2.1"),
    ],
)
def test_nobody_else_and_nothing_else_resumes_it(
    world: World, other: Callable[[World], ssl.SSLObject]
) -> None:
    world.connect()

    assert not other(world).session_reused


def test_a_session_is_no_proof_of_another_name(world: World) -> None:
    """The origin is the same and would resume it; but it never proved that name."""
    world.connect(target=TARGET)

    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        world.connect(target=Authority.of("other.example", 443), shown="example.com")


@pytest.mark.parametrize("shown", ["other.example", "192.0.2.1"])
def test_an_origin_that_cannot_resume_is_verified_in_full(world: World, shown: str) -> None:
    world.connect()

    with pytest.raises(ssl.SSLCertVerificationError):
        world.connect(shown=shown)

    assert not world.connect().session_reused


def test_other_roots_resume_nothing(world: World, tmp_path: Path) -> None:
    world.connect()
    others = CertificateAuthority.load_or_create(tmp_path)
    world.tls = UpstreamTls(str(others.certificate_path), sessions=TlsSessions())

    with pytest.raises(ssl.SSLCertVerificationError):
        world.connect()


def test_a_session_is_kept_for_minutes_only(world: World) -> None:
    world.connect()
    assert world.connect().session_reused

    world.clocks.now += 301

    assert not world.connect().session_reused


def test_no_session_outlives_the_certificate_that_was_verified(world: World) -> None:
    world.connect()

    world.clocks.wall += 10 * 365 * 24 * 3600

    assert not world.connect().session_reused
    assert len(world.sessions) == 1


def test_a_target_that_fails_when_asked_to_resume_is_not_asked_again(world: World) -> None:
    world.connect()
    handshake = TlsFor(world.tls, "a run").begin(TARGET, ALPN)
    handshake.shake(b"")
    with pytest.raises(ssl.SSLError):
        handshake.shake(b"\x15\x03\x03\x00\x02\x02\x2f")

    world.connect()

    assert not world.connect().session_reused


def test_a_name_is_proved_by_the_alternative_name_and_not_the_common_name(
    authority: CertificateAuthority,
) -> None:
    context = UpstreamTls(str(authority.certificate_path))
    records, _ = context.begin(TlsFor(context).begin(TARGET, ALPN)._key)

    assert records.tls.context.check_hostname
    assert records.tls.context.verify_mode is ssl.CERT_REQUIRED
    assert not records.tls.context.hostname_checks_common_name
    assert records.tls.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert records.tls.context.security_level >= 2


def test_roots_that_cannot_be_read_are_an_error_and_are_read_again(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    roots = tmp_path / "roots.pem"
    tls = UpstreamTls(str(roots))
    with pytest.raises(FileNotFoundError):
        TlsFor(tls).begin(TARGET, ALPN)

    roots.write_bytes(authority.certificate_path.read_bytes())

    assert TlsFor(tls).begin(TARGET, ALPN).records.tls.context.check_hostname


def test_a_file_of_roots_that_was_removed_is_written_again(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    roots = tmp_path / "roots.pem"
    pem = authority.certificate_path.read_bytes()

    def restore() -> None:
        roots.write_bytes(pem)

    tls = UpstreamTls(str(roots), restore)

    assert TlsFor(tls).begin(TARGET, ALPN).records.tls.context.check_hostname
