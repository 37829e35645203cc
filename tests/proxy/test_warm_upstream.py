"""A connection that waits is verified, silent and open when it is handed over, or it is closed."""

import socket

import pytest

from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.proxy.layers.tls_peers import origin_context
from tests.proxy.warm_rig import Pool, Taken, TlsOriginServer, kept
from tests.support.loopback import LOOPS, Origin, Play, Run, run_on, until


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that plays a coroutine function on one of the two loops."""

    def play_on_loop(play: Play) -> None:
        run_on(request.param, play)

    return play_on_loop


def tls_pool(
    origin: TlsOriginServer, authority: CertificateAuthority, alpn: tuple[bytes, ...] = ()
) -> Pool:
    return Pool(
        origin.port,
        tls=True,
        alpn=alpn or (b"http/1.1",),
        authority=authority,
    )


def early_of(pool: Pool) -> list[object]:
    (found,) = pool.warm._kept.values()
    return list(found.warm._early)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """The CA that upstreams are verified by."""
    return CertificateAuthority.load_or_create(tmp_path_factory.mktemp("confdir"))


def test_its_handshake_is_done_and_verified_before_there_is_a_request(
    run: Run, authority: CertificateAuthority
) -> None:
    async def play() -> None:
        async with TlsOriginServer(origin_context(authority, "example.com")) as origin:
            pool = tls_pool(origin, authority)
            upstream = await kept(pool, origin)
            taken = pool.take()
            assert taken is not None
            taken.says(b"hello")

            assert await upstream.gets(5) == b"hello"
            taken.leaves()

    run(play)


def test_a_certificate_for_another_name_gives_none_and_is_not_tried_again(
    run: Run, authority: CertificateAuthority
) -> None:
    async def play() -> None:
        async with TlsOriginServer(origin_context(authority, "other.example")) as origin:
            pool = tls_pool(origin, authority)
            pool.keep()
            await pool.is_empty()
            pool.keep()

            assert len(pool.warm) == 0
            assert len(pool.notices) == 1

    run(play)


@pytest.mark.parametrize("then", ["is taken", "is swept"])
@pytest.mark.parametrize("opened", [1, 2])
def test_one_whose_certificate_has_expired_meanwhile_is_closed(
    run: Run, authority: CertificateAuthority, then: str, opened: int
) -> None:
    """Also where its handshake resumed a session, as that of a second one may."""

    async def play() -> None:
        async with TlsOriginServer(origin_context(authority, "example.com")) as origin:
            pool = tls_pool(origin, authority)
            ends = authority.leaf("example.com").certificate.not_valid_after_utc.timestamp()
            pool.wall_s = ends - 1
            for _ in range(opened - 1):
                await _used(pool, origin)
            upstream = await kept(pool, origin)
            pool.warm.sweep()
            assert pool.warm.ready == 1
            pool.wall_s = ends
            if then == "is taken":
                assert pool.take() is None
            else:
                pool.warm.sweep()

            assert len(pool.warm) == 0
            assert await upstream.gets_rest() == b""

    run(play)


def test_a_rotated_credential_resumes_no_session_of_the_old_value(
    run: Run, authority: CertificateAuthority
) -> None:
    async def play() -> None:
        async with TlsOriginServer(origin_context(authority, "example.com")) as origin:
            pool = tls_pool(origin, authority)
            pool.key = pool.key._replace(credential="api")
            resumed = []
            for value in (b"old", b"old", b"new", b"new", b"old"):
                pool.secrets.values["api"] = Secret(value)
                taken = await _used(pool, origin)
                resumed.append(_resumes(taken))

            assert resumed == [False, True, False, True, True]

    run(play)


def _resumes(taken: Taken) -> bool:
    records = taken.upstream._records
    assert records is not None
    return bool(records.tls.session_reused)


async def _used(pool: Pool, origin: TlsOriginServer) -> Taken:
    """Have one kept and used, so that the next may resume its session."""
    upstream = await kept(pool, origin)
    taken = pool.take()
    assert taken is not None
    taken.says(b"hello")
    assert await upstream.gets(5) == b"hello"
    taken.leaves()
    return taken


def test_what_an_origin_of_http_2_says_first_is_kept_for_whom_it_is_for(
    run: Run, authority: CertificateAuthority
) -> None:
    async def play() -> None:
        context = origin_context(authority, "example.com", ("h2",))
        async with TlsOriginServer(context) as origin:
            pool = tls_pool(origin, authority, (b"h2", b"http/1.1"))
            upstream = await kept(pool, origin)
            await upstream.says(b"settings")
            await until(lambda: early_of(pool))
            taken = pool.take()
            assert taken is not None

            assert list(taken.upstream.inbox)[1:] == [b"settings"]
            taken.leaves()

    run(play)


def test_an_origin_of_http_2_that_says_too_much_is_closed(
    run: Run, authority: CertificateAuthority
) -> None:
    async def play() -> None:
        context = origin_context(authority, "example.com", ("h2",))
        async with TlsOriginServer(context) as origin:
            pool = tls_pool(origin, authority, (b"h2", b"http/1.1"))
            upstream = await kept(pool, origin)
            await upstream.says(bytes(8192))

            await pool.is_empty()

    run(play)


# --- upstreams that do not wait


@pytest.mark.parametrize("spoils", ["leaves", "breaks off", "half-closes"])
def test_an_upstream_that_ends_it_is_dialled_afresh(run: Run, spoils: str) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            upstream = await kept(pool, origin)
            if spoils == "leaves":
                await upstream.leaves()
            elif spoils == "breaks off":
                upstream.breaks_off()
            else:
                upstream.half_closes()
            await pool.is_empty()

            assert pool.take() is None
            pool.keep()  # servers end what is not used: the next one may be
            await pool.is_ready()
            pool.warm.close()

    run(play)


@pytest.mark.parametrize("spoils", ["leaves", "breaks off", "half-closes", "speaks"])
def test_what_the_upstream_does_at_the_last_moment_counts(run: Run, spoils: str) -> None:
    async def play() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            pool = Pool(server.getsockname()[1])
            pool.keep()
            await pool.is_ready()
            upstream, _ = server.accept()
            with upstream:
                match spoils:
                    case "leaves":
                        upstream.close()
                    case "breaks off":
                        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                        upstream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        upstream.close()
                    case "half-closes":
                        upstream.shutdown(socket.SHUT_WR)
                    case _:
                        upstream.send(b"220 ready\r\n")

                assert pool.take() is None  # the loop had no turn to see it
                assert len(pool.warm) == 0

    run(play)


def test_a_handshake_without_an_end_is_given_up(run: Run, authority: CertificateAuthority) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port, tls=True, authority=authority)
            pool.keep()
            upstream = await origin.accepts()
            await upstream.gets(5)
            pool.now_s += 3600
            pool.warm.sweep()

            assert len(pool.warm) == 0
            await upstream.gets_rest()

    run(play)


def test_it_is_probed_only_while_it_waits(run: Run) -> None:
    async def play() -> None:
        async with Origin().listening() as origin:
            pool = Pool(origin.port)
            await kept(pool, origin)
            (waiting,) = pool.warm._kept
            assert waiting._endpoint is not None
            transport = waiting._endpoint.transport
            assert transport is not None
            sock = transport.get_extra_info("socket")
            while_waiting = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            taken = pool.take()

            assert taken is not None
            assert while_waiting
            assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            taken.leaves()

    run(play)
