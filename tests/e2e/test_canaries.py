"""A value that is put in stands in no log line, row or printed event, whatever becomes of it."""

import logging
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.audit.sinks import ConsoleSink, Descriptor, JsonlSink
from claude_proxy.audit.store import AuditStore
from claude_proxy.config.settings import LogFormat, Verbosity
from claude_proxy.policy.credentials.binding import Binding, Injection, LoginPin
from claude_proxy.policy.credentials.sources import FileSource
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.proxy.gate import Attempt, ClientInfo, Gate
from claude_proxy.proxy.inspection.base import ResponseCutOff
from claude_proxy.server import logs
from claude_proxy.vault.vault import Vault
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import policy_of

VALUE = b"sk-ant-api03-CANARY-that-nobody-may-see"
HOLDER = "sk-ant-claude-proxy-placeholder-a"
ORIGIN = ClientInfo(7, "127.0.0.1:50000", "tcp")
SOURCE = Location("allowlist.yaml", 1, 1)
IN_SOME_FORM = (b"CANARY", b"that-nobody-may-see", VALUE.hex().encode(), b64encode(VALUE)[3:-3])


def policy_with(file: Path) -> Policy:
    allowed = policy_of("allow: [a.example, b.example, c.example]")
    patterns = [(HostPattern.parse(f"{name}.example"),) for name in "ab"]
    use = Injection(FileSource(file), placeholder=HOLDER)
    return Policy(
        allow=allowed.allow,
        credentials=(
            Binding("a", patterns[0], use, SOURCE),
            Binding("b", patterns[1], LoginPin(learn=True), SOURCE),
        ),
    )


def request(host: str, *fields: tuple[bytes, bytes], query: str = "") -> Request:
    target = Authority.of(host, 443)
    return Request(Scheme.HTTPS, target, target, "POST", "/v1/messages", query, fields)


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Leave the handlers and the level of the root logger as they were."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def answered(gate: Gate, passage: Attempt, asked: Request, status: int, content: bytes) -> None:
    """Let an answer of an upstream come in, as a lane does."""
    watch = gate.inspector_of(passage, asked)
    try:
        if watch is not None:
            watch.head(status, [(b"content-type", b"text/plain")])
            gate.answered(passage, status)
            watch.feed(content)
            watch.finish()
    except ResponseCutOff as cut:
        gate.end(passage, cut.word)
    gate.end(passage)


@pytest.mark.parametrize("loud", Verbosity)
@pytest.mark.usefixtures("root_logger")
def test_no_trace_of_a_value_is_left_anywhere(
    tmp_path: Path, loud: Verbosity, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure(loud, LogFormat.TEXT)
    file, statedir = tmp_path / "key", tmp_path / "state"
    file.write_bytes(VALUE)
    file.chmod(0o600)
    policy = policy_with(file)
    out = os.open(tmp_path / "printed", os.O_WRONLY | os.O_CREAT, 0o600)
    sinks = [
        ConsoleSink(Descriptor(out), verbosity=loud, log_format=LogFormat.TEXT),
        JsonlSink.at(tmp_path / "printed.jsonl"),
    ]
    vault = Vault(policy.credentials, statedir, {})
    with closing(vault), closing(AuditStore(database_in(statedir), sinks=sinks)) as store:
        gate = Gate(policy, store.record, secret_provider=vault)
        asked = request("a.example", (b"x-api-key", HOLDER.encode()))
        for status, content in (
            (200, b"hello"),
            (200, b"you sent " + VALUE),
            (401, b"no"),
            (500, VALUE),
        ):
            passage = gate.request(ORIGIN, asked, "/v1/messages")
            assert passage.credential.credential == "a"
            answered(gate, passage, asked, status, content)
        # By a client that has come to know it.
        for fields in (
            ((b"x-api-key", VALUE),),
            ((b"Authorization", b"Bearer " + VALUE),),
            ((b"Cookie", b"a=" + VALUE),),
            ((b"User-Agent", VALUE), (b"x-api-key", HOLDER.encode())),
        ):
            assert not gate.request(ORIGIN, request("a.example", *fields), "/").decision.allowed
        asked = request("a.example", query=f"api_key={VALUE.decode()}")
        assert not gate.request(ORIGIN, asked, "/v1/messages").decision.allowed
        # A pin that cannot be kept, and one that is, unlearned, and learned again.
        asked = request("b.example", (b"x-api-key", VALUE))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vault, "learn", _fails)
            assert not gate.request(ORIGIN, asked, "/").decision.allowed
        for status in (401, 200):
            passage = gate.request(ORIGIN, asked, "/")
            assert passage.decision.allowed
            gate.answered(passage, status)
            gate.end(passage)
        # A source that fails.
        file.chmod(0o644)
        vault._checked_at = 0.0
        asked = request("a.example")
        assert not gate.request(ORIGIN, asked, "/").decision.allowed
        store.flush()
    os.close(out)
    said = "".join(capfd.readouterr())
    file.unlink()

    assert loud is Verbosity.QUIET or "credential source unavailable" in said
    places = [said.encode()] + [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(places) > 4
    for form in IN_SOME_FORM:
        assert not any(form in place for place in places)


def _fails(_name: str, _login: tuple[bytes, bytes]) -> None:
    raise OSError(28, "No space left on device")


def test_the_rows_name_the_credential_and_how_the_answer_ended(tmp_path: Path) -> None:
    file, statedir = tmp_path / "key", tmp_path / "state"
    file.write_bytes(VALUE)
    file.chmod(0o600)
    policy = policy_with(file)
    printed = tmp_path / "printed.jsonl"
    vault = Vault(policy.credentials, statedir, {})
    sinks = [JsonlSink.at(printed)]
    with closing(vault), closing(AuditStore(database_in(statedir), sinks=sinks)) as store:
        gate = Gate(policy, store.record, secret_provider=vault)
        asked = request("a.example")
        answered(gate, gate.request(ORIGIN, asked, "/"), asked, 200, VALUE)
        store.flush()
    with suppress(FileNotFoundError):
        file.unlink()

    text = printed.read_text("utf-8")
    assert '"credential": "a"' in text or '"credential":"a"' in text
    assert "credential-echoed" in text
