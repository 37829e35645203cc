"""Laws of learning: hosts that were reached, and nothing else, are written to a valid preset."""

import errno
import fcntl
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.audit import learn
from claude_proxy.audit.learn import Hosts, Learner, text_with, usage_of
from claude_proxy.audit.sinks import Printer
from claude_proxy.config import policy_files
from claude_proxy.config.allowlist import loader
from claude_proxy.config.settings import Learn
from claude_proxy.errors import ConfigError
from claude_proxy.events import PASSTHROUGH_SCHEME, TCP_SCHEME, DecisionMade, OutcomeSeen, Phase
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason

EPOCH = 1_790_000_000
OTHERS = "# mine\nallow:\n  - mine.test # why\n"

type Learning = Callable[..., Learner]


def decision(
    number: int,
    target: str,
    *,
    phase: Phase = Phase.REQUEST,
    scheme: str = "https",
    reason: Reason = Reason.RULE_MATCHED,
) -> DecisionMade:
    return DecisionMade(
        id=number,
        connection=1,
        client="127.0.0.1:1",
        listener="tcp",
        phase=phase,
        scheme=scheme,
        target=target,
        method="GET",
        path="/secret?token=1",
        allowed=reason is Reason.RULE_MATCHED,
        reason=reason.value,
        rule=None,
        rule_source=None,
    )


def denial(target: str, reason: Reason = Reason.NO_RULE) -> DecisionMade:
    return decision(1, target, phase=Phase.CONNECT, scheme="", reason=reason)


def outcome(number: int, upstream: str | None = "192.0.2.1:443") -> OutcomeSeen:
    return OutcomeSeen(number, 200, 0, 0, 1.0, 1.0, upstream, None)


def visit(sink: Callable[..., object], target: str, number: int = 1, scheme: str = "https") -> None:
    sink(decision(number, target, scheme=scheme))
    sink(outcome(number))


def policy_of(text: str) -> Policy:
    """Return what a policy allows that uses the text as a preset."""
    library = loader.Library(preset=lambda _: text)
    return loader.load("allow: [{preset: learned}]", name="a.yaml", library=library)


def hosts_of(file: Path) -> list[str]:
    return list(policy_of(file.read_text()).hosts())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "learned.yaml"


@pytest.fixture
def learning(file: Path) -> Iterator[Learning]:
    started: list[Learner] = []

    def start(learn: Learn = Learn.EVERYTHING, path: Path = file) -> Learner:
        started.append(Learner(learn, path, clock=lambda: EPOCH + 0.5, pause_s=3600))
        return started[-1]

    yield start
    for learner in started:
        learner.close()


# What is learned


def test_hosts_that_were_reached_are_learned_once_and_in_order(
    learning: Learning, file: Path
) -> None:
    learner = learning()
    for number, target in enumerate(["b.test:443", "a.test:443", "b.test:443"]):
        visit(learner, target, number)

    learner.write()

    assert hosts_of(file) == ["a.test", "b.test"]


def test_nothing_but_hosts_is_in_the_file(learning: Learning, file: Path) -> None:
    learner = learning()
    visit(learner, "a.test:443")
    visit(learner, "a.test:80", 2, "http")

    learner.write()

    assert "secret" not in file.read_text()
    assert "token" not in file.read_text()


NOT_LEARNED = {
    "not ended": (decision(1, "a.test:443"),),
    "not reached": (decision(1, "a.test:443"), outcome(1, None)),
    "denied": (decision(1, "a.test:443", reason=Reason.NO_RULE), outcome(1)),
    "a tunnel": (decision(1, "a.test:443", phase=Phase.CONNECT, scheme=""), outcome(1)),
    "unknown": (outcome(1),),
    "no port": (decision(1, "a.test"), outcome(1)),
    "no address": (decision(1, "127.1:443"), outcome(1)),
    "a suffix": (decision(1, "com:443"), outcome(1)),
    "no name": (decision(1, 'a"\n.test:443'), outcome(1)),
}


@pytest.mark.parametrize("events", NOT_LEARNED.values(), ids=NOT_LEARNED.keys())
def test_what_was_not_reached_or_is_no_host_is_not_learned(
    learning: Learning, file: Path, events: tuple[DecisionMade | OutcomeSeen, ...]
) -> None:
    learner = learning()
    for event in events:
        learner(event)

    learner.write()

    assert not file.exists()


def test_a_tunnel_that_is_passed_through_is_a_visit(learning: Learning, file: Path) -> None:
    learner = learning()
    learner(decision(1, "a.test:443", phase=Phase.CONNECT, scheme=PASSTHROUGH_SCHEME))
    learner(outcome(1))

    learner.write()

    assert hosts_of(file) == ["a.test"]


def test_ports_and_plain_http_are_written_as_they_were_met(learning: Learning, file: Path) -> None:
    learner = learning()
    visit(learner, "deb.test:80", 1, "http")
    visit(learner, "[2606:4700::1]:8443", 2)

    learner.write()

    assert [str(rule) for rule in policy_of(file.read_text()).allow] == [
        "https://2606:4700::1 ports 8443",
        "http://deb.test ports 80",
    ]


def test_a_host_with_the_name_of_a_preset_is_a_host(learning: Learning, file: Path) -> None:
    learner = learning()
    visit(learner, "github:443")

    learner.write()

    assert hosts_of(file) == ["github"]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason != Reason.RULE_MATCHED])
def test_denials_of_hosts_are_learned_and_denials_of_requests_are_not(
    learning: Learning, file: Path, reason: Reason
) -> None:
    learner = learning(Learn.DENIALS)
    visit(learner, "reached.test:443", 7)
    learner(denial("a.test:443", reason))

    learner.write()

    learned = hosts_of(file) if file.exists() else []
    of_the_host = reason in {
        *(Reason.NO_RULE, Reason.DENY_RULE),
        *(Reason.PORT_NOT_ALLOWED, Reason.SCHEME_NOT_ALLOWED),
    }
    assert learned == (["a.test"] if of_the_host else [])


def test_a_flood_of_names_fills_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "MOST_HOSTS", 3)
    hosts = Hosts(Learn.DENIALS)

    for number in range(5):
        hosts.take(denial(f"a{number}.test:443"))

    assert len(hosts.ways) == 3
    text = text_with("", hosts.ways, "now", name="a.yaml", overflowed=hosts.overflowed)
    assert text.count("the rest was not written down") == 1
    assert text_with(text, hosts.ways, "later", name="a.yaml", overflowed=True) == text


def test_a_flood_of_attempts_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "_PENDING", 2)
    hosts = Hosts(Learn.EVERYTHING)
    for number in range(3):
        hosts.take(decision(number, f"a{number}.test:443"))

    learned = [hosts.take(outcome(number)) for number in range(3)]

    assert learned == [False, True, True]


texts = st.text() | st.text(st.sampled_from('a.-_*"\\\n#[]:/?0')).map(lambda text: f"{text}:443")


@given(st.lists(texts, max_size=5))
def test_the_preset_is_valid_whatever_was_asked_for(targets: list[str]) -> None:
    hosts = Hosts(Learn.DENIALS)
    for target in targets:
        hosts.take(denial(target))

    text = text_with("", hosts.ways, "now", name="a.yaml")

    assert len(policy_of(text).allow) == len(hosts.ways)


# The file


def test_the_file_is_its_owners_alone(learning: Learning, file: Path) -> None:
    file.write_text(OTHERS)
    file.chmod(0o644)
    learner = learning()
    visit(learner, "a.test:443")

    learner.write()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_what_else_the_file_holds_stays(learning: Learning, file: Path) -> None:
    file.write_text(OTHERS)
    learner = learning()

    visit(learner, "a.test:443")
    learner.write()
    visit(learner, "b.test:443", 2)
    learner.write()

    assert file.read_text() == f"{OTHERS}  - a.test\n  - b.test\n"


def test_what_is_added_meanwhile_stays_too(learning: Learning, file: Path) -> None:
    learner = learning()
    visit(learner, "a.test:443")
    learner.write()
    file.write_text(file.read_text() + "  - mine.test\n")

    visit(learner, "b.test:443", 2)
    learner.write()

    assert hosts_of(file) == ["a.test", "mine.test", "b.test"]


def test_two_simultaneous_learners_lose_nothing(learning: Learning, file: Path) -> None:
    learners = [learning(), learning()]

    for number in range(3):
        for each, learner in enumerate(learners):
            visit(learner, f"h{number}.of{each}.test:443", number)
            learner.write()

    assert hosts_of(file) == [f"h{number}.of{each}.test" for number in range(3) for each in (0, 1)]


def test_what_the_owner_deletes_stays_deleted(learning: Learning, file: Path) -> None:
    learner = learning()
    visit(learner, "a.test:443")
    learner.write()
    file.write_text(file.read_text().replace("a.test", "edited.test"))

    visit(learner, "b.test:443", 2)
    learner.write()

    assert hosts_of(file) == ["edited.test", "b.test"]


def test_a_link_stays_a_link(learning: Learning, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    learner = learning(path=link)
    visit(learner, "a.test:443")

    learner.write()

    assert link.is_symlink()
    assert hosts_of(file) == ["a.test"]


def test_what_is_new_is_written_at_the_end_as_well(file: Path) -> None:
    learner = Learner(Learn.EVERYTHING, file, clock=lambda: EPOCH)
    printer = Printer([learner])
    printer.put(decision(1, "a.test:443"))
    printer.put(outcome(1))

    printer.close()

    assert hosts_of(file) == ["a.test"]


def test_what_is_new_is_written_after_a_while_by_itself(file: Path) -> None:
    written = threading.Event()

    class Waiting(Learner):
        def write(self) -> None:
            super().write()
            if file.exists():
                written.set()

    with closing(Waiting(Learn.EVERYTHING, file, clock=lambda: EPOCH, pause_s=0.01)) as learner:
        visit(learner, "a.test:443")

        assert written.wait(60)


# Trouble


@pytest.mark.parametrize("text", ["[", "alow: []\n", "deny: [a.test]\n", "allow: [[x]]\n"])
def test_a_file_that_is_no_preset_stops_the_start(
    learning: Learning, file: Path, text: str
) -> None:
    file.write_text(text)

    with pytest.raises(ConfigError):
        learning()

    assert file.read_text() == text


def test_a_file_that_is_not_utf_8_stops_the_start(learning: Learning, file: Path) -> None:
    file.write_bytes(b"\xff")

    with pytest.raises(ConfigError, match="not UTF-8"):
        learning()


def test_a_file_that_is_full_stops_the_start(learning: Learning, file: Path) -> None:
    file.write_text("#" * (learn.MAX_BYTES + 1))

    with pytest.raises(ConfigError, match="full"):
        learning()


@pytest.mark.parametrize(
    ("path", "why"),
    [("none/learned.yaml", "no such directory"), ("", "is a directory")],
)
def test_a_place_that_cannot_be_written_stops_the_start(
    learning: Learning, tmp_path: Path, path: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=f"cannot be written: .*{why}") as caught:
        learning(path=tmp_path / path)

    assert caught.value.fix == "name a file in a directory that you may write in"


def test_a_directory_of_others_stops_the_start(
    learning: Learning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    with pytest.raises(ConfigError, match="permission denied"):
        learning()


def test_a_full_disk_is_reported_once_and_loses_nothing_learned(
    learning: Learning,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file.write_text(OTHERS)
    learner = learning()
    visit(learner, "a.test:443")
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(os, "fsync", full)
        learner.write()
        learner.write()
    left = [path.name for path in file.parent.iterdir()], file.read_text()

    learner.write()

    assert left == ([file.name], OTHERS)
    assert [record.getMessage() for record in caplog.records] == [
        f"what was learned cannot be written to {file}: No space left on device"
    ]
    assert hosts_of(file) == ["mine.test", "a.test"]


def test_a_file_that_was_broken_meanwhile_is_left_alone(
    learning: Learning, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learner = learning()
    visit(learner, "a.test:443")
    file.write_text("[")

    learner.write()

    assert file.read_text() == "["
    assert "this is not YAML" in caplog.text


def test_an_exception_while_writing_does_not_end_learning(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = threading.Semaphore(0)

    def broken(_: Learner) -> None:
        calls.release()
        raise RuntimeError

    monkeypatch.setattr(Learner, "write", broken)
    learner = Learner(Learn.EVERYTHING, file, pause_s=0.01)
    again = calls.acquire(timeout=60) and calls.acquire(timeout=60)
    monkeypatch.undo()
    learner.close()

    assert again
    assert "writing what was learned failed" in caplog.text


def test_nobody_can_hold_the_lock_for_ever(
    learning: Learning,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(learn, "_PAUSE_S", 0)
    learner = learning()
    visit(learner, "a.test:443")
    holder = os.open(file.parent, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)

    learner.write()

    os.close(holder)
    assert "cannot be written" in caplog.text
    assert not file.exists()


# How it is used


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("presets/work.yaml", "allow: [{preset: work}]"),
        ("presets/github.yaml", 'include: ["{confdir}/presets/github.yaml"]'),
        ("presets/Work.yaml", 'include: ["{confdir}/presets/Work.yaml"]'),
        ("work.yaml", 'include: ["{confdir}/work.yaml"]'),
    ],
)
def test_the_line_that_uses_it_can_be_used(tmp_path: Path, path: str, line: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text_with("", [("a.test", "https", 443)], "now", name=str(file)))

    found = usage_of(file, tmp_path)

    assert found == line.replace("{confdir}", str(tmp_path))
    own = tmp_path / "allowlist.yaml"
    own.write_text(found)
    assert list(policy_files.load(own).policy.hosts()) == ["a.test"]


@pytest.mark.parametrize("learn", list(Learn))
def test_bytes_of_any_protocol_are_never_learned(learn: Learn) -> None:
    hosts = Hosts(learn)

    assert not hosts.take(decision(1, "db.test:5432", phase=Phase.CONNECT, scheme=TCP_SCHEME))
    assert not hosts.take(outcome(1))
    refused = decision(2, "db.test:5432", scheme=TCP_SCHEME, reason=Reason.ADDRESS_NOT_ALLOWED)
    assert not hosts.take(refused)
    assert not hosts.ways
