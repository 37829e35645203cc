"""PostgreSQL's password stays outside: psql and pgbench log in with a placeholder."""

import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from claude_proxy.wire import postgres
from tests.conftest import FindProgram
from tests.support.waiting import until

from .conftest import Launch, StartProxy
from .rig.database import PASSWORD, PORT, Database
from .rig.internet import Internet
from .rig.launch import trusted
from .rig.proxy import LOOPBACK, Proxy
from .rig.socks import GRANTED, NO_LOGIN, read_exactly, reply
from .rig.socks import GREETING as SOCKS
from .rig.socks import request as socks_request

PLACEHOLDER = "claude-proxy-placeholder-shop"
ALLOWLIST = """\
allow:
  - {host: postgres.test, scheme: tcp, ports: [5433]}
  - {host: other-postgres.test, scheme: tcp, ports: [5433]}
credentials:
  - {host: %s, ports: [5433], inject: postgres, name: shop, user: %s, %s from: {env: SHOP}}
"""
WHOSE = "select current_user || ' ' || (select ssl from pg_stat_ssl where pid = pg_backend_pid())"

type Psql = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def database(internet: Internet, program: FindProgram) -> Iterator[Database]:
    for name in ("pg_ctlcluster", "psql", "socat", "setpriv"):
        program(name)
    address = internet.site("postgres.test")
    internet.names.answer("other-postgres.test", [address])
    database = Database(internet)
    yield database
    database.close()


def list_for(*, host: str = "postgres.test", user: str = "app", more: str = "") -> str:
    return ALLOWLIST % (host, user, more)


class Forwarder:
    """A port of the host that leads through the proxy, as `run --forward` makes one inside."""

    def __init__(self, proxy: Proxy, port: int, host: str = "postgres.test") -> None:
        self.proxy, self.port = proxy, port
        through = f"PROXY:{LOOPBACK}:{host}:{PORT},proxyport={proxy.port}"
        listen = f"TCP-LISTEN:{port},bind={LOOPBACK},fork,reuseaddr"
        self._process = subprocess.Popen(
            proxy.internet.host.argv(["socat", listen, through]), stderr=subprocess.DEVNULL
        )
        until(self._listens, "socat to listen")

    def _listens(self) -> bool:
        ran = self.proxy.place.run("ss", "-Hltn", f"sport = :{self.port}")
        return str(self.port) in ran.stdout

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def command(self, program: str, *words: str, user: str = "app") -> list[str]:
        return [program, "-h", LOOPBACK, "-p", str(self.port), "-U", user, *words]

    def environment(self, password: str) -> dict[str, str]:
        return self.proxy.place.environment(PGPASSWORD=password, PGCONNECT_TIMEOUT="30")

    def run(
        self, *words: str, program: str = "psql", user: str = "app", password: str = PLACEHOLDER
    ) -> subprocess.CompletedProcess[str]:
        return self.proxy.place.run(
            *self.command(program, *words, user=user), environment=self.environment(password)
        )


@pytest.fixture
def forward(
    start_proxy: StartProxy, ports: Iterator[int], database: Database
) -> Iterator[Callable[..., Forwarder]]:
    del database
    made: list[Forwarder] = []

    def begin(allowlist: str | None = None, *, host: str = "postgres.test") -> Forwarder:
        proxy = start_proxy(allowlist or list_for(), SHOP=PASSWORD)
        made.append(Forwarder(proxy, next(ports), host))
        return made[-1]

    yield begin
    for forwarder in made:
        forwarder.close()


def test_psql_logs_in_with_the_placeholder_over_verified_tls(
    forward: Callable[..., Forwarder],
) -> None:
    way = forward()

    ran = way.run("-Atc", WHOSE, "shop")

    assert ran.stdout.strip() == "app true", ran.stderr
    proxy = way.proxy
    row = proxy.decisions(f"postgres.test:{PORT}")[-1]
    assert (row.scheme, row.credential) == ("tcp", "shop")
    told = proxy.stdout() + proxy.stderr() + ran.stdout + ran.stderr
    assert PASSWORD not in told
    for file in proxy.statedir.rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes()
    shown = proxy.place.claude_proxy(
        "check", f"tcp://postgres.test:{PORT}", "--allowlist", str(proxy.allowlist)
    ).stdout
    assert "inside: PostgreSQL's protocol, with the placeholder" in shown
    assert "credential shop: inject postgres as app from" in shown


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
def test_a_client_may_demand_tls_or_do_without(
    forward: Callable[..., Forwarder], mode: str
) -> None:
    ran = forward().run("-Atc", WHOSE, f"dbname=shop sslmode={mode}")

    assert ran.stdout.strip() == "app true", ran.stderr


def test_a_client_may_verify_the_name_by_the_proxys_ca(forward: Callable[..., Forwarder]) -> None:
    way = forward()
    place = f"host=postgres.test hostaddr={LOOPBACK} port={way.port} user=app dbname=shop"
    verifying = f"{place} sslmode=verify-full sslrootcert={way.proxy.ca_file}"

    ran = way.proxy.place.run(
        *("psql", "-Atc", r"\conninfo", verifying), environment=way.environment(PLACEHOLDER)
    )

    assert "SSL connection" in ran.stdout, ran.stderr


def test_pgbench_works_through_it(forward: Callable[..., Forwarder], program: FindProgram) -> None:
    program("pgbench")
    way = forward()

    made = way.run("-iq", "shop", program="pgbench")
    ran = way.run("-c", "3", "-t", "20", "shop", program="pgbench")

    assert made.returncode == 0, made.stderr
    assert "number of transactions actually processed: 60/60" in ran.stdout, ran.stderr


def test_a_foreign_login_is_denied(forward: Callable[..., Forwarder], internet: Internet) -> None:
    way = forward(list_for(more="database: shop,"))

    with internet.watch() as seen:
        ran = [
            way.run("-c", "select 1", "shop", password="of-another-role", user="other"),
            way.run("-c", "select 1", "shop", user="other"),
            way.run("-c", "select 1", "shop", password="guessed"),
            way.run("-c", "select 1", "shop", password=PASSWORD),
            way.run("-c", "select 1", "postgres"),
        ]

    assert all("denied by claude-proxy (foreign-credential)" in one.stderr for one in ran)
    assert seen.nothing()
    replicating = way.run("-c", "IDENTIFY_SYSTEM", "dbname=shop replication=database")
    assert "sessions of replication are not allowed" in replicating.stderr
    reasons = [row.reason for row in way.proxy.decisions(f"postgres.test:{PORT}")]
    assert set(reasons) == {"foreign-credential", "method-refused"}


def test_a_server_with_another_name_gets_no_login(forward: Callable[..., Forwarder]) -> None:
    way = forward(list_for(host="other-postgres.test"), host="other-postgres.test")

    ran = way.run("-c", "select 1", "shop")

    assert "the database is not reached" in ran.stderr
    assert ran.returncode != 0


WEAK = {
    "hashed": ("hashed", "", "by md5, which is not allowed"),
    "in clear": ("clear", "", "by password, which is not allowed"),
    "not at all": ("anybody", "", "lets anybody in"),
}


@pytest.mark.parametrize(("user", "more", "told"), WEAK.values(), ids=WEAK)
def test_a_server_that_asks_for_less_than_scram_gets_nothing(
    forward: Callable[..., Forwarder], user: str, more: str, told: str
) -> None:
    way = forward(list_for(user=user, more=more))

    ran = way.run("-c", "select 1", "shop", user=user)

    assert told in ran.stderr


@pytest.mark.parametrize(
    ("user", "more", "tls"),
    [
        ("hashed", "auth: [scram-sha-256, md5],", "true"),
        ("clear", "auth: [password],", "true"),
        ("app", "tls: none,", "false"),
    ],
)
def test_an_owner_may_allow_more(
    forward: Callable[..., Forwarder], user: str, more: str, tls: str
) -> None:
    way = forward(list_for(user=user, more=more))

    ran = way.run("-Atc", WHOSE, "shop", user=user)

    assert ran.stdout.strip() == f"{user} {tls}", ran.stderr


def test_it_is_reached_by_socks5_as_well(start_proxy: StartProxy, database: Database) -> None:
    del database
    proxy = start_proxy(list_for(), SHOP=PASSWORD)
    parameters = {"user": "app", "database": "shop"}

    with proxy.connect() as connection:
        connection.sendall(SOCKS + socks_request(f"postgres.test:{PORT}"))
        assert read_exactly(connection, 12) == NO_LOGIN + reply(GRANTED)
        connection.sendall(postgres.startup_message(parameters))
        asked = read_exactly(connection, len(postgres.ASK_FOR_PASSWORD))
        connection.sendall(postgres.password_message(PLACEHOLDER.encode()))
        let_in = read_exactly(connection, len(postgres.AUTHENTICATED))

    assert (asked, let_in) == (postgres.ASK_FOR_PASSWORD, postgres.AUTHENTICATED)


def test_a_reload_that_keeps_the_binding_keeps_the_session(
    forward: Callable[..., Forwarder],
) -> None:
    way = forward()
    # The session lasts until the reload is over, which the proxy says.
    waits = "\\! kill -HUP {0}; until grep -q evil.test {1}; do sleep 0.1; done"
    script = waits + "\nselect 'there';\n"
    way.proxy.allowlist.write_text("deny: [evil.test]\n" + list_for())

    ran = way.proxy.place.run(
        *way.command("psql", "-At", "shop"),
        environment=way.environment(PLACEHOLDER),
        given=script.format(way.proxy.process.pid, way.proxy.place.directory / "std*").encode(),
    )

    assert "there" in ran.stdout, ran.stderr


def test_a_query_can_be_cancelled(forward: Callable[..., Forwarder], database: Database) -> None:
    way = forward()
    running = subprocess.Popen(
        way.proxy.internet.host.argv(
            way.command("psql", "-c", "select pg_sleep(300)", "shop"), cwd=way.proxy.place.home
        ),
        env=way.environment(PLACEHOLDER),
        stderr=subprocess.PIPE,
    )
    sleeping = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'"
    until(lambda: database.admin(sleeping).strip() == "1", "the query to run")

    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)

    assert b"canceling statement due to user request" in told


def test_a_withdrawn_binding_ends_the_session(forward: Callable[..., Forwarder]) -> None:
    way = forward()
    running = subprocess.Popen(
        way.proxy.internet.host.argv(way.command("psql", "-At", "shop"), cwd=way.proxy.place.home),
        env=way.environment(PLACEHOLDER),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write(b"select 'here';\n")
    running.stdin.flush()
    assert running.stdout.readline() == b"here\n"
    way.proxy.allowlist.write_text(list_for(user="other"))
    way.proxy.signal(signal.SIGHUP)
    until(
        lambda: way.proxy.decisions(f"postgres.test:{PORT}")[-1].reason == "rule-withdrawn",
        "the end of the tunnel",
    )

    _, told = running.communicate(b"select 'there';\n", timeout=60)

    assert b"connection to server was lost" in told


def test_a_run_has_the_placeholder_and_nothing_else(
    launch: Launch, database: Database, program: FindProgram
) -> None:
    del database
    program("psql")
    runs = trusted(launch(list_for()))
    look = (
        f'psql -h 127.0.0.1 -p 15433 -U app -Atc "{WHOSE}" shop && env && '
        "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; true"
    )

    ran = runs.run(
        *("sh", "-c", look),
        options=("--forward", f"15433=postgres.test:{PORT}"),
        variables={"SHOP": PASSWORD},
    )

    assert "app true" in ran.stdout.splitlines(), ran.stderr
    assert f"PGPASSWORD={PLACEHOLDER}" in ran.stdout
    assert PASSWORD not in ran.stdout + ran.stderr
