"""One line for each event, whatever a client sent, and no decision waits for a sink."""

import errno
import json
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claude_proxy.audit.sinks import (
    AppendedFile,
    ConsoleSink,
    Descriptor,
    JsonlSink,
    Printer,
    decision_line,
    fields_of,
    json_line,
    rfc3339,
)
from claude_proxy.config.settings import LogFormat, Verbosity
from claude_proxy.errors import ConfigError
from claude_proxy.events import PASSTHROUGH_SCHEME, DecisionMade, Event, Notice, Phase
from tests.audit.examples import MOMENT, a_decision, a_denial, a_usage, an_outcome

ANY_TEXT = st.text(st.characters(exclude_categories=[]))


class Kept:
    """An output that keeps what it is given, or fails as often as it is told to."""

    def __init__(self) -> None:
        self.text = ""
        self.failures = 0

    def write(self, data: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "no space")
        self.text += data.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


A_TUNNEL = a_decision(phase=Phase.CONNECT, scheme="", method="CONNECT", path="")
A_REFUSED_TUNNEL = a_denial(phase=Phase.CONNECT, scheme="", method="CONNECT", path="")
A_PASSTHROUGH = A_TUNNEL._replace(scheme=PASSTHROUGH_SCHEME)


def printed(
    *events: Event,
    verbosity: Verbosity = Verbosity.NORMAL,
    log_format: LogFormat = LogFormat.TEXT,
) -> list[str]:
    output = Kept()
    sink = ConsoleSink(output, verbosity=verbosity, log_format=log_format)
    for event in events:
        sink(event)
    sink.release()
    sink.flush()
    return output.lines


# The console's lines


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (a_decision(), "Allowed: GET https://example.com/path"),
        (a_denial(), "Denied: GET https://example.com/path (no-rule)"),
        (
            a_denial(target="example.com:8443"),
            "Denied: GET https://example.com:8443/path (no-rule)",
        ),
        (a_decision(scheme="http", target="a.b:80"), "Allowed: GET http://a.b/path"),
        (a_decision(scheme="http", target="a.b:443"), "Allowed: GET http://a.b:443/path"),
        (a_decision(target="[::1]:443"), "Allowed: GET https://[::1]/path"),
        (a_decision(method="OPTIONS", path="*"), "Allowed: OPTIONS https://example.com"),
        (A_REFUSED_TUNNEL, "Denied: CONNECT example.com:443 (no-rule)"),
        (A_PASSTHROUGH, "Allowed: CONNECT example.com:443 (passthrough)"),
        (
            a_denial(phase=Phase.HELLO, method="", path="", reason="sni-mismatch"),
            "Denied: CONNECT example.com:443 (sni-mismatch)",
        ),
        (
            a_denial(phase=Phase.DIAL, method="", path="", reason="address-not-allowed"),
            "Denied: CONNECT example.com:443 (address-not-allowed)",
        ),
        (
            a_denial(phase=Phase.RELOAD, method="", path="", scheme="", reason="rule-withdrawn"),
            "Denied: CONNECT example.com:443 (rule-withdrawn)",
        ),
        (
            a_denial(phase=Phase.CLIENT, target="", method="", path="", client="10.0.0.9:1"),
            "Denied: client 10.0.0.9:1 (no-rule)",
        ),
        (
            a_denial(phase=Phase.REQUEST, method="", path="", reason="bad-request"),
            "Denied: request example.com:443 (bad-request)",
        ),
        (
            a_denial(phase=Phase.CONNECT, target="", method="", path="", client="10.0.0.9:1"),
            "Denied: request 10.0.0.9:1 (no-rule)",
        ),
        (
            a_denial(phase=Phase.CONNECT, target="", method="SOCKS", path="", client="10.0.0.9:1"),
            "Denied: request 10.0.0.9:1 (no-rule)",
        ),
        (
            a_denial(method="GET", scheme="", target="not a target\x1b[2J", path=""),
            r"Denied: GET not\x20a\x20target\x1b[2J (no-rule)",
        ),
        (
            a_denial(path="/\r\nAllowed: GET https://evil/"),
            r"Denied: GET https://example.com/\x0d\x0aAllowed:\x20GET\x20https://evil/ (no-rule)",
        ),
    ],
)
def test_a_decision_is_one_line(event: DecisionMade, line: str) -> None:
    assert printed(event) == [line]


def test_an_allowed_step_towards_a_request_is_not_printed() -> None:
    steps = [
        A_TUNNEL,
        a_decision(phase=Phase.HELLO, method="", path=""),
        a_decision(phase=Phase.DIAL, method="", path=""),
        a_decision(phase=Phase.CLIENT, target="", method="", path=""),
    ]

    assert printed(*steps, an_outcome()) == []


def test_quiet_prints_neither_allowed_nor_denied() -> None:
    assert printed(a_decision(), a_denial(), verbosity=Verbosity.QUIET) == []


def test_verbose_prints_steps_and_outcomes() -> None:
    refused = an_outcome(2, status=None, upstream=None, error="closed")

    lines = printed(A_TUNNEL, a_decision(2), an_outcome(), refused, verbosity=Verbosity.VERBOSE)

    assert lines == [
        "Allowed: CONNECT example.com:443",
        "Allowed: GET https://example.com/path",
        "Ended: CONNECT example.com:443: 200, 10 B up, 2000 B down, 12 ms, by 203.0.113.5:443",
        "Ended: GET https://example.com/path: no answer, 10 B up, 2000 B down, 12 ms, closed",
    ]


def test_verbose_prints_the_credential_and_the_usage_of_a_response() -> None:
    costly = an_outcome(usage=a_usage())
    cheap = an_outcome(2, usage=a_usage(model="", cache_written=0, cache_read=0))

    lines = printed(a_decision(credential="our key"), costly, cheap, verbosity=Verbosity.VERBOSE)

    assert lines[0] == "Allowed: GET https://example.com/path [credential our key]"
    assert lines[1].endswith(
        "443, claude-opus-4-1: 12 tokens in, 340 out, 5 into the cache, 6000 from the cache"
    )
    assert lines[2].endswith("443, 12 tokens in, 340 out")


def test_a_line_for_each_request_stays_short() -> None:
    assert printed(a_decision(credential="anthropic")) == ["Allowed: GET https://example.com/path"]


@given(ANY_TEXT)
def test_the_name_of_a_model_stays_in_its_field(text: str) -> None:
    (line,) = printed(an_outcome(usage=a_usage(model=text)), verbosity=Verbosity.VERBOSE)

    assert all(" " <= character <= "~" for character in line)


def test_an_outcome_without_its_decision_is_printed_with_its_number() -> None:
    (line,) = printed(an_outcome(5), verbosity=Verbosity.VERBOSE)

    assert line.startswith("Ended: 5: 200")


def test_attempts_that_never_end_are_not_named_forever() -> None:
    sink = ConsoleSink(Kept(), verbosity=Verbosity.VERBOSE)
    for number in range(5000):
        sink(a_decision(number))

    assert len(sink._names) == 4096
    assert 4999 in sink._names


@pytest.mark.parametrize("verbosity", Verbosity)
def test_the_console_repeats_no_notice_that_the_proxy_prints(verbosity: Verbosity) -> None:
    notices = [Notice(1, kind, "text") for kind in ("start", "policy-rejected", "limit")]

    assert printed(*notices, verbosity=verbosity) == []


@pytest.mark.parametrize("verbosity", Verbosity)
def test_the_audits_own_notices_are_always_printed(verbosity: Verbosity) -> None:
    notice = Notice(1, "audit-recovered", "it works\x1b[m again")

    assert printed(notice, verbosity=verbosity) == [r"Notice: it works\x1b[m again"]


def test_json_has_every_notice_unless_it_is_quiet() -> None:
    notice = Notice(MOMENT, "policy-applied", "+ example.com")

    (line,) = printed(notice, log_format=LogFormat.JSON)
    quiet = printed(notice, log_format=LogFormat.JSON, verbosity=Verbosity.QUIET)

    assert json.loads(line) == {
        "ts": "2026-01-02T03:04:05.000006Z",
        "phase": "notice",
        "kind": "policy-applied",
        "text": "+ example.com",
        "run": None,
    }
    assert quiet == []


# JSON


def test_a_decision_in_json_has_its_stable_names() -> None:
    (line,) = printed(a_decision(), log_format=LogFormat.JSON)

    assert json.loads(line) == {
        "ts": "2026-01-02T03:04:05.000006Z",
        "phase": "request",
        "action": "allow",
        "reason": "rule-matched",
        "host": "example.com",
        "port": 443,
        "rule": "example.com",
        "rule_source": "allowlist.yaml:12",
        "credential": None,
        "method": "GET",
        "path": "/path",
        "client": "127.0.0.1:55555",
        "run": None,
        "listener": "127.0.0.1:9051",
        "scheme": "https",
        "connection": 7,
        "id": MOMENT,
        "attempt": None,
        "count": 1,
        "last": None,
    }


def test_an_outcome_in_json_is_of_its_end() -> None:
    assert json.loads(json_line(an_outcome())) == {
        "ts": "2026-01-02T03:04:05.012506Z",
        "phase": "outcome",
        "decision": MOMENT,
        "state": "allowed",
        "status": 200,
        "bytes_up": 10,
        "bytes_down": 2000,
        "duration_ms": 12.5,
        "first_byte_ms": 3.25,
        "upstream": "203.0.113.5:443",
        "error": None,
        "usage": None,
    }


def test_json_has_the_credential_and_the_usage_of_a_response() -> None:
    decision = json.loads(json_line(a_decision(credential="anthropic")))
    outcome = json.loads(json_line(an_outcome(usage=a_usage())))

    assert decision["credential"] == "anthropic"
    assert outcome["usage"] == {
        "model": "claude-opus-4-1",
        "tokens_in": 12,
        "tokens_out": 340,
        "cache_written": 5,
        "cache_read": 6000,
    }


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        ("[2001:db8::1]:443", "2001:db8::1", 443),
        ("example.com", "example.com", None),
        ("what\x1b is:this", "what\x1b is:this", None),
        ("", "", None),
    ],
)
def test_a_target_in_json_is_taken_apart_if_it_can_be(
    target: str, host: str, port: int | None
) -> None:
    fields = fields_of(a_denial(target=target))

    assert (fields["host"], fields["port"]) == (host, port)


@given(ANY_TEXT)
def test_json_is_one_harmless_line_that_reads_back(text: str) -> None:
    line = json_line(a_denial(path=text, method=text, target=text))

    assert all(" " <= character <= "~" for character in line)
    assert json.loads(line)["path"] == text.encode("utf-16", "surrogatepass").decode(
        "utf-16", "surrogatepass"
    )


@given(ANY_TEXT)
def test_a_line_of_text_is_one_harmless_line(text: str) -> None:
    line = decision_line(a_denial(path=text, method=text, target=text, reason=text))

    assert all(" " <= character <= "~" for character in line)
    assert line.count(" ") == 3


@pytest.mark.parametrize("moment", [-(1 << 63), (1 << 63) - 1, 1 << 80])
def test_an_impossible_moment_costs_no_line(moment: int) -> None:
    assert rfc3339(moment)


# The JSONL file


@pytest.fixture
def free_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def told(sink: JsonlSink, *events: Event) -> None:
    for event in events:
        sink(event)
    sink.flush()


@pytest.mark.usefixtures("free_umask")
def test_the_file_is_its_owners_and_holds_every_event(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    told(JsonlSink.at(path), A_TUNNEL, an_outcome(), Notice(1, "start", "here"))
    told(JsonlSink.at(path), a_denial())

    phases = [json.loads(line)["phase"] for line in path.read_text().splitlines()]
    assert phases == ["connect", "outcome", "notice", "request"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_rotated_file_is_left_and_a_new_one_begun(tmp_path: Path) -> None:
    path, rotated = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    sink = JsonlSink.at(path)
    told(sink, a_decision(1))
    path.rename(rotated)

    told(sink, a_decision(2))
    path.write_text("")
    told(sink, a_decision(3))

    assert [json.loads(line)["id"] for line in rotated.read_text().splitlines()] == [1]
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [3]


def test_a_dash_is_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    told(JsonlSink.at(Path("-")), a_decision())

    assert json.loads(capfd.readouterr().out)["id"] == MOMENT


def test_a_link_or_a_pipe_or_nothing_to_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    for name in ("link", "pipe", "absent/file"):
        with pytest.raises(ConfigError, match="JSONL") as caught:
            JsonlSink.at(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
        assert caught.value.fix is not None
    os.close(reader)
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_that_a_full_disk_cut_off_stays_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    file = AppendedFile(path)
    real, room = os.write, [5, 0]

    def write(fd: int, data: bytes) -> int:
        if not room:
            return real(fd, data)
        if room[0] == 0:
            room.pop(0)
            raise OSError(errno.ENOSPC, "no space")
        return real(fd, data[: room.pop(0)])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="no space"):
        file.write(b'{"a": 1}\n')
    file.write(b'{"b": 2}\n')
    room.append(0)
    with pytest.raises(OSError, match="no space"):
        file.write(b'{"c": 3}\n')
    file.write(b'{"d": 4}\n')

    assert path.read_text() == '{"a":\n{"b": 2}\n{"d": 4}\n'


def test_lines_that_could_not_be_written_are_counted() -> None:
    output = Kept()
    sinks = [
        ConsoleSink(output),
        ConsoleSink(output, log_format=LogFormat.JSON),
        JsonlSink(output),
    ]
    for sink in sinks:
        output.failures = 2
        for number in range(3):
            sink(a_denial(number))
            sink(a_denial(number))
            sink.flush()
        sink.flush()

    text, *_, in_json, _, _, in_jsonl, _, _ = output.lines
    assert text == "4 lines not printed"
    assert json.loads(in_json)["text"] == "4 lines not printed"
    assert json.loads(in_jsonl)["text"] == "4 lines not written"
    assert len(output.lines) == 9


def test_a_jsonl_file_that_cannot_be_written_is_reported_once_and_again_when_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = Kept()
    sink = JsonlSink(output, "/full/disk.jsonl")
    output.failures = 3
    for number in range(5):
        sink(a_decision(number))
        sink.flush()

    failed, recovered = (record.message for record in caplog.records)
    assert failed == (
        "the JSON lines of --jsonl cannot be written to /full/disk.jsonl (no space): events are"
        " missing there until this is fixed; the audit log has them"
    )
    assert recovered == (
        "3 JSON lines of --jsonl are missing in /full/disk.jsonl; the audit log has them"
    )
    assert list(sink.reports) == [failed, recovered]


# Failures after the decision


def test_an_attempt_that_failed_is_printed_as_failed_and_not_as_allowed() -> None:
    failure = an_outcome(status=502, error="dns-failed")

    assert printed(a_decision(), failure) == ["Failed: GET https://example.com/path (dns-failed)"]


def test_an_attempt_that_was_denied_after_all_is_printed_once() -> None:
    denial = a_denial(2, attempt=1, phase=Phase.DIAL, reason="address-not-allowed")
    outcome = an_outcome(1, status=403, error="address-not-allowed")

    assert printed(a_decision(1), denial, outcome) == [
        "Denied: GET https://example.com/path (address-not-allowed)"
    ]


def test_a_tunnel_that_failed_is_printed_and_one_that_was_given_up_is_not() -> None:
    failed = an_outcome(error="client-rejected-certificate")
    given_up = an_outcome(error="client-closed")

    assert printed(A_TUNNEL, failed) == [
        "Failed: CONNECT example.com:443 (client-rejected-certificate)"
    ]
    assert printed(A_TUNNEL, given_up) == []


def test_an_answer_that_takes_long_is_printed_before_it_ends() -> None:
    output, now = Kept(), [0.0]
    sink = ConsoleSink(output, clock=lambda: now[0])
    sink(a_decision())

    assert sink.tick()
    sink.flush()
    assert output.lines == []
    now[0] = 1.5
    assert not sink.tick()
    sink(an_outcome(error="upstream-cut-short"))
    sink.flush()

    assert output.lines == [
        "Allowed: GET https://example.com/path",
        "Failed: GET https://example.com/path (upstream-cut-short)",
    ]


def test_json_has_the_outcome_of_a_failure_too() -> None:
    decided, ended = printed(
        a_decision(), an_outcome(error="dns-failed"), log_format=LogFormat.JSON
    )

    assert json.loads(decided)["action"] == "allow"
    assert (json.loads(ended)["state"], json.loads(ended)["error"]) == ("failed", "dns-failed")


def test_attempts_that_are_held_back_are_bounded() -> None:
    output = Kept()
    sink = ConsoleSink(output)
    for number in range(5000):
        sink(a_decision(number))
    sink.flush()

    assert len(sink._open) == 4096
    assert len(output.lines) == 5000 - 4096


# Descriptors


def test_a_slow_pipe_gets_all() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = bytes(range(256)) * 4096
    taken = bytearray()

    def read() -> None:
        while len(taken) < len(data):
            taken.extend(os.read(reading, 10_000))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    Descriptor(writing).write(data)

    reader.join(30)
    os.close(reading)
    os.close(writing)
    assert taken == data


def test_lines_of_several_writers_into_one_pipe_stay_whole() -> None:
    reading, writing = os.pipe()
    lines = [bytes([letter]) * 99 + b"\n" for letter in b"abcd"]

    with ThreadPoolExecutor() as pool:
        done = pool.map(lambda line: Descriptor(writing).write(line * 500), lines)
        with os.fdopen(reading, "rb") as reader:
            got = [reader.readline() for _ in range(2000)]
        list(done)
    os.close(writing)

    assert sorted(got) == sorted(line for line in lines for _ in range(500))


# The thread


def test_what_was_queued_is_printed_before_the_end() -> None:
    got: list[Event] = []
    events = [a_decision(number) for number in range(1000)]
    printer = Printer([got.append])
    for event in events:
        printer.put(event)

    printer.close()

    assert got == events


def test_a_blocked_sink_costs_only_lines() -> None:
    release, entered = threading.Event(), threading.Event()
    got: list[Event] = []

    def stuck(event: Event) -> None:
        entered.set()
        release.wait(30)
        got.append(event)

    printer = Printer([stuck], bound=10)
    printer.put(a_decision(0))
    assert entered.wait(30)
    for number in range(1, 31):
        printer.put(a_decision(number))
    printer.close(timeout_s=0)
    release.set()
    printer.close(timeout_s=30)

    *events, notice = got
    assert [event.id for event in events if isinstance(event, DecisionMade)] == list(range(11))
    assert isinstance(notice, Notice)
    assert (notice.kind, notice.text) == ("lines-lost", "20 lines not printed")


def test_a_sink_that_fails_costs_its_line_and_no_other() -> None:
    got: list[Event] = []

    def failing(event: Event) -> None:
        if isinstance(event, DecisionMade):
            raise LookupError(event.id)  # noqa: TRY004 - any fault will do

    printer = Printer([failing, got.append])
    printer.put(a_decision(1))
    printer.put(a_decision(2))
    printer.close()

    *events, notice = got
    assert events == [a_decision(1), a_decision(2)]
    assert isinstance(notice, Notice)
    assert notice.text == "2 lines not printed"


def test_gathered_lines_are_flushed() -> None:
    output = Kept()
    printer = Printer([ConsoleSink(output)])
    printer.put(a_decision())
    printer.close()

    assert output.lines == ["Allowed: GET https://example.com/path"]


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=5))
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=20)
def test_no_text_of_a_client_loses_a_line(texts: list[tuple[str, str]]) -> None:
    output = Kept()
    sinks = [ConsoleSink(output), JsonlSink(output)]
    for target, path in texts:
        for sink in sinks:
            sink(a_denial(target=target, path=path))
    for sink in sinks:
        sink.flush()

    assert len(output.text.split("\n")) == 2 * len(texts) + 1
    assert all(" " <= character <= "~" for line in output.lines for character in line)
