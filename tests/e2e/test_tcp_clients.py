"""Clients of databases and devices that know of no proxy reach the server that a rule names."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import NOT_INSTALLED, PYTHON_TOOLS, FindProgram

from .conftest import Launch
from .rig.containers import BOX, Containers
from .rig.engine import EngineStorage, image_of
from .rig.internet import Internet
from .rig.launch import Launches
from .rig.tcp_servers import ADB, MARIADB, MONGO, REDIS, adb, mariadb, mongo, redis

PROGRAMS = ("redis-cli", "mariadb", "adb")
ALLOWLIST = f"""\
allow:
  - {{host: redis.test, scheme: tcp, ports: [{REDIS}]}}
  - {{host: mariadb.test, scheme: tcp, ports: [{MARIADB}]}}
  - {{host: adb.test, scheme: tcp, ports: [{ADB}]}}
  - {{host: mongo.test, scheme: tcp, ports: [{MONGO}]}}
"""
FORWARDS = (
    *("--forward", f"6379=redis.test:{REDIS}", "--forward", f"3306=mariadb.test:{MARIADB}"),
    *("--forward", f"5037=adb.test:{ADB}"),
)
CASES = {
    "redis-cli": (
        "redis-cli -a of-the-client --no-auth-warning -h 127.0.0.1 echo 41",
        "41",
        ("redis.test", REDIS),
    ),
    "mariadb": (
        "mariadb -h 127.0.0.1 -u app -pof-the-client -N -e 'select 41 + 1' shop",
        "42",
        ("mariadb.test", MARIADB),
    ),
    "adb": ("adb -H 127.0.0.1 -P 5037 devices", "List of devices attached", ("adb.test", ADB)),
}  # One that is given a single member asks for no other; else it goes where the server says it is.
COUNT = """\
import sys, pymongo
client = pymongo.MongoClient(sys.argv[1], serverSelectionTimeoutMS=60_000)
print(client.admin.command("ping")["ok"], client.shop.command("count", "items")["n"])
"""


@pytest.fixture(scope="module")
def servers(internet: Internet, program: FindProgram) -> Iterator[None]:
    for name in ("redis-server", "mariadbd", "adb", "setpriv"):
        program(name)
    with ExitStack() as stack:
        for host, start in (("redis.test", redis), ("mariadb.test", mariadb), ("adb.test", adb)):
            internet.site(host)
            stack.callback(start(internet).close)
        yield


@pytest.fixture(scope="module")
def storage(program: FindProgram) -> Iterator[EngineStorage]:
    program("runc")
    storage = EngineStorage(program("podman"))
    storage.add(image_of(program("busybox"), [program(name) for name in PROGRAMS]), BOX)
    yield storage
    storage.close()


@pytest.fixture
def user(launch: Launch) -> Launches:
    return launch(ALLOWLIST)


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("client", PROGRAMS)
def test_a_client_in_a_run_reaches_the_server_that_is_forwarded(
    user: Launches, client: str
) -> None:
    command, expected, target = CASES[client]

    ran = user.run("sh", "-c", command, options=FORWARDS)

    assert ran.stdout.strip() == expected, ran.stderr
    assert {(row.host, row.port) for row in user.audit("--allowed")} == {target}


@pytest.mark.usefixtures("servers")
def test_clients_in_a_container_reach_the_servers_that_are_forwarded(
    user: Launches, storage: EngineStorage
) -> None:
    script = "; ".join(command for command, _, _ in CASES.values())

    ran = Containers(user, storage).run(*FORWARDS, "--", "sh", "-c", script)

    assert [line for line in ran.stdout.splitlines() if line] == [
        expected for _, expected, _ in CASES.values()
    ], ran.stderr


@pytest.fixture(scope="module")
def pymongo(internet: Internet) -> Iterator[Path]:
    """Start a server, and return the directory of its client's library."""
    found = next(PYTHON_TOOLS.parent.glob("lib/*/site-packages/pymongo"), None)
    if found is None:
        pytest.skip(f"pymongo {NOT_INSTALLED}")
    internet.site("mongo.test")
    server = mongo(internet, str(PYTHON_TOOLS / "python"))
    yield found.parent
    server.close()


@pytest.mark.parametrize(
    ("options", "url"),
    [
        pytest.param(
            ("--forward", f"27017=mongo.test:{MONGO}"),
            "mongodb://127.0.0.1/?directConnection=true",
            id="forwarded",
        ),
        pytest.param(
            ("--transparent", "on"), f"mongodb://mongo.test:{MONGO}/?replicaSet=only", id="by name"
        ),
    ],
)
def test_a_client_of_mongodb_reaches_its_server(
    user: Launches, pymongo: Path, options: tuple[str, ...], url: str
) -> None:
    words = ("env", f"PYTHONPATH={pymongo}", "python3", "-c", COUNT, url)

    ran = user.run(*words, options=["--allow-ro", pymongo, *options])

    assert ran.stdout.split() == ["1.0", "42"], ran.stderr
    assert ("mongo.test", MONGO) in {(row.host, row.port) for row in user.audit("--allowed")}
