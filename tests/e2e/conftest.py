"""Lends the end-to-end tests their internet, a proxy that they share, and proxies of their own."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from tests.conftest import FindProgram

from .rig.internet import Internet
from .rig.launch import Launches
from .rig.messages_api import messages_api
from .rig.namespaces import NAMESPACE_PROGRAMS
from .rig.proxy import BANNER, Proxy, Workplace

SHARED_ALLOWLIST = """\
allow:
  - allowed.test
  - origin.test
  - other.test
  - h2.test
  - "*.wild.test"
  - {host: read-only.test, methods: [GET, HEAD]}
  - {host: paths.test, paths: ["/ok/**"]}
  - {host: plain.test, scheme: http, ports: [80]}
  - {host: through.test, tls: passthrough}
  - {host: ports.test, ports: [443, 8443]}
  - {host: private.test, addresses: [10.20.0.0/16]}
  - {host: beyond.test, addresses: [10.20.0.0/16]}
  - {host: echoing.test, note: for the WebSocket}
  - self-signed.test
  - expired.test
  - future.test
  - wrong-name.test
  - common-name-only.test
  - no-such-name.test
  - {host: refusing.test, ports: [443, 9999]}
  - broken.test
  - rebinding.test
  - metadata.test
  - mixed.test
  - loopback.test
  - 93.190.1.1
  - 10.30.0.0/16
  - "2600:1f18::99"
  - bücher.test
  - {host: second-plain.test, scheme: http, ports: [80]}
deny:
  - host: allowed.test
    paths: ["/forbidden/**"]
"""

RUN_ALLOWLIST = """\
allow:
  - api.anthropic.com
  - origin.test
  - git.test
  - pypi.test
  - npm.test
"""

_SITES = (
    "allowed.test",
    "origin.test",
    "other.test",
    "one.wild.test",
    "wild.test",
    "read-only.test",
    "paths.test",
    "plain.test",
    "through.test",
    "ports.test",
    "echoing.test",
    "second-plain.test",
    "xn--bcher-kva.test",
    "self-signed.test",
    "expired.test",
    "future.test",
    "wrong-name.test",
    "common-name-only.test",
    "broken.test",
    # Nobody allows these; they are there, so that an escape would succeed.
    "denied.test",
    "allowed.test.denied.test",
    "notallowed.test",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this directory, so that it can be left out or run alone."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


type Launch = Callable[..., Launches]


class StartProxy(Protocol):
    """Starts a proxy with an allowlist, options and environment variables, and waits for it."""

    def __call__(
        self,
        allowlist: str | None,
        *options: str | Path,
        ready: str = BANNER,
        **variables: str,
    ) -> Proxy: ...


@pytest.fixture(scope="package")
def internet(tmp_path_factory: pytest.TempPathFactory, program: FindProgram) -> Iterator[Internet]:
    """The internet, with the sites that most tests need."""
    for name in NAMESPACE_PROGRAMS:
        program(name)
    internet = Internet(tmp_path_factory.mktemp("internet"))
    for host in _SITES:
        internet.site(host)
    internet.site("h2.test", http2=True)
    internet.site("api.anthropic.com", messages_api)
    internet.site("mozilla.org")
    # Every address of this internet answers on the ports of the web, and on no other.
    internet.site("refusing.test")
    yield internet
    internet.close()


@pytest.fixture(scope="package")
def ports() -> Iterator[int]:
    """Ports that nobody else has: the host's namespace is ours alone."""
    return itertools.count(20_000)


@pytest.fixture(scope="package")
def proxy(
    internet: Internet, ports: Iterator[int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """The proxy that tests share."""
    proxy = proxy_process(
        internet, tmp_path_factory.mktemp("shared"), SHARED_ALLOWLIST, next(ports)
    )
    try:
        proxy.wait_until_listening()
        yield proxy
    finally:
        proxy.stop()
    proxy.check_calm()


@pytest.fixture
def start_proxy(internet: Internet, ports: Iterator[int], tmp_path: Path) -> Iterator[StartProxy]:
    """Start proxies that only this test uses; each must end calmly."""
    started: list[Proxy] = []

    def start(
        allowlist: str | None,
        *options: str | Path,
        ready: str = BANNER,
        **variables: str,
    ) -> Proxy:
        directory = tmp_path / f"proxy-{len(started)}"
        directory.mkdir()
        proxy = proxy_process(internet, directory, allowlist, next(ports), options, variables)
        started.append(proxy)
        proxy.wait_until_listening(ready)
        return proxy

    yield start
    for proxy in started:
        proxy.stop()
    for proxy in started:
        proxy.check_calm()


@pytest.fixture
def place(internet: Internet, tmp_path: Path) -> Workplace:
    """A home directory on the host, without a proxy."""
    return Workplace(internet, tmp_path / "place")


@pytest.fixture
def launch(internet: Internet, program: FindProgram) -> Iterator[Launch]:
    """Return a function that lends a user; whatever the user ran must be gone in the end."""
    program("bwrap")
    lent: list[Launches] = []

    def lend(allowlist: str = RUN_ALLOWLIST, *, ordinary: bool = False) -> Launches:
        lent.append(Launches(internet, allowlist, ordinary=ordinary))
        return lent[-1]

    yield lend
    for launches in lent:
        launches.close()


@pytest.fixture
def runs(launch: Launch) -> Launches:
    """The tests' own user."""
    return launch()


@pytest.fixture(params=["the tests' own user", "an ordinary user"])
def anybody(request: pytest.FixtureRequest, launch: Launch) -> Launches:
    """Each kind of user in turn."""
    return launch(ordinary=request.param == "an ordinary user")


def proxy_process(
    internet: Internet,
    directory: Path,
    allowlist: str | None,
    port: int,
    options: Sequence[str | Path] = (),
    variables: Mapping[str, str] | None = None,
) -> Proxy:
    """Start a proxy with a list (None: the shipped one) that trusts the internet's root."""
    arguments: list[str | Path] = ["serve", "--port", str(port)]
    arguments += ["--upstream-ca", internet.pki.root_file]
    if allowlist is not None:
        file = directory / "allowlist.yaml"
        file.write_text(allowlist.replace("$PORT", str(port)), encoding="utf-8")
        arguments += ["--allowlist", file]
    # What waits for a next request would be seen on the cable by the tests that come after.
    quiet = {"CLAUDE_PROXY_WARM_UPSTREAMS": "false", **(variables or {})}
    return Proxy(internet, directory, [*arguments, *options], port=port, variables=quiet)
