"""A valid changed allowlist applies at once, an invalid one changes nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_proxy.config import file_states, owner_files, policy_files
from claude_proxy.config.file_states import States
from claude_proxy.config.loaded_policy import Loaded
from claude_proxy.config.settings import Limits, Settings
from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice
from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.connection import ClientConnection, Services
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.server import reload as reload_module
from claude_proxy.server import settling
from claude_proxy.server.gates import Gates
from claude_proxy.server.reload import Reloader
from claude_proxy.server.vaults import vault_of
from tests.proxy.layers.stage import Ledger, options_of
from tests.support.loopback import Names, Play, run_on, until


class Tunnels:
    """Connections of which some are tunnels whose rule is gone."""

    def __init__(self, *withdrawn: bool) -> None:
        self._withdrawn = withdrawn

    def connections(self) -> set[ClientConnection]:
        return {_Tunnel(withdrawn) for withdrawn in self._withdrawn}  # type: ignore[misc]


class _Tunnel:
    def __init__(self, withdrawn: bool) -> None:  # noqa: FBT001
        self._withdrawn = withdrawn

    def withdraw(self) -> bool:
        return self._withdrawn


class Owner:
    """The owner, who edits the file and reads notices and announcements."""

    def __init__(self, directory: Path, **changes: object) -> None:
        self.file = directory / "allowlist.yaml"
        self.own = directory / "own.yaml"
        self.writes("allow: [a.example]\n")
        self.ledger = Ledger()
        self.notices: list[Notice] = []
        self.said: list[str] = []
        self.applied: list[Settings] = []
        self.hosts_when_warm_were_closed: list[list[str]] = []
        settings = Settings(self.file, directory, directory, **changes)  # type: ignore[arg-type]
        loaded = policy_files.load_for(settings)
        dialer = Dialer(Names())
        self.vault = vault_of(settings, loaded.policy)
        gates = Gates(settings, loaded.policy, self.ledger.events.append, self.vault)
        self.services = Services(
            gate=gates.proxy,
            dialer=dialer,
            limits=Limits(),
            options=options_of(),
            top_layer=lambda context, session: ProtocolDetection(context, session, dialer),
        )
        self.reloader = Reloader(
            settings,
            loaded,
            gates,
            self.services.connections,
            record=self.notices.append,
            announce=self.said.append,
            on_applied=self.applied.append,
            close_warm=lambda: self.hosts_when_warm_were_closed.append(self.hosts),
        )

    def writes(self, text: str, file: Path | None = None) -> None:
        path = file or self.file
        path.write_text(text)
        path.chmod(0o600)

    @property
    def hosts(self) -> list[str]:
        return list(self.services.gate.policy.hosts())


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    tmp_path.chmod(0o700)
    return Owner(tmp_path)


def play(owner: Owner) -> None:
    run_on("asyncio", owner.reloader.reload)


def test_a_good_list_applies_and_says_what_changed(owner: Owner) -> None:
    owner.writes("allow: [b.example]\ndeny: [c.example]\n")

    play(owner)

    assert owner.hosts == ["b.example"]
    (said,) = owner.said
    assert said.startswith("Allowlist applied: + ")
    assert "b.example" in said
    assert "deny" in said
    assert "- " in said
    assert [notice.kind for notice in owner.notices] == ["policy-applied"]
    assert owner.hosts_when_warm_were_closed == [["b.example"]]


def test_only_a_policy_that_is_in_force_is_reported_as_applied(owner: Owner) -> None:
    owner.writes("allow: [b.example]\n")
    play(owner)
    owner.writes("allow: {broken\n")
    play(owner)

    assert [settings.allowlist for settings in owner.applied] == [owner.file]


def test_a_report_that_fails_does_not_stop_the_watcher(owner: Owner) -> None:
    owner.applied = None  # type: ignore[assignment]
    owner.writes("allow: [b.example]\n")
    owner.reloader._on_applied = lambda _: 1 / 0  # type: ignore[assignment]

    play(owner)

    assert owner.hosts == ["b.example"]


def test_a_list_that_says_the_same_changes_nothing(owner: Owner) -> None:
    play(owner)

    assert owner.said == ["Allowlist applied: no rule changed"]


def test_a_long_change_is_counted_and_not_spelled_out(owner: Owner) -> None:
    hosts = ", ".join(f"h{number}.example" for number in range(15))
    owner.writes(f"allow: [a.example, {hosts}]\n")

    play(owner)

    assert " and 5 more; opens every request to https://h0.example; " in owner.said[0]
    assert owner.said[0].endswith(" and 12 more")


@pytest.mark.parametrize(
    ("withdrawn", "says"),
    [
        ((False,), "no rule changed"),
        ((True, False), "no rule changed; 1 open tunnel closed"),
        ((True, True), "no rule changed; 2 open tunnels closed"),
    ],
)
def test_tunnels_whose_rule_is_gone_are_closed_and_counted(
    owner: Owner, withdrawn: tuple[bool, ...], says: str
) -> None:
    owner.services.connections |= Tunnels(*withdrawn).connections()

    play(owner)

    assert owner.said == [f"Allowlist applied: {says}"]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda owner: owner.writes("allow: ['*']\n"),
        lambda owner: owner.writes("allow: [\n"),
        lambda owner: owner.file.unlink(),
        lambda owner: owner.file.chmod(0o666),
    ],
    ids=["a bad rule", "no YAML", "gone", "writable by others"],
)
def test_an_invalid_list_changes_nothing_and_is_reported(
    owner: Owner, capsys: pytest.CaptureFixture[str], break_it: Callable[[Owner], None]
) -> None:
    break_it(owner)

    play(owner)

    shown = capsys.readouterr().err
    assert owner.hosts == ["a.example"]
    assert owner.said == []
    assert [notice.kind for notice in owner.notices] == ["policy-rejected"]
    assert "the allowlist was rejected; the last valid one stays in force" in shown
    assert "error: " in shown
    assert "  fix:   " in shown


def test_an_error_while_reading_changes_nothing(
    owner: Owner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_for(settings: Settings, last: Loaded, seen: States) -> Loaded:
        assert seen == {}
        raise RecursionError(f"a bug with {settings} after {last}")

    monkeypatch.setattr(policy_files, "load_for", load_for)

    play(owner)

    assert owner.hosts == ["a.example"]
    assert owner.notices[0].text == "internal error (RecursionError)"
    assert "internal error (RecursionError)" in capsys.readouterr().err


def test_only_one_of_many_workers_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = Owner(tmp_path)
    owner.reloader._loud = False
    owner.writes("allow: [\n")

    play(owner)

    assert capsys.readouterr().err == ""
    assert owner.hosts == ["a.example"]


# --- watching


def in_no_time(patch: pytest.MonkeyPatch) -> None:
    """Let a file that was written count as complete at once."""
    for name in ("_POLL_INTERVAL_S", "SETTLED_S", "SETTLED_TWICE_S"):
        patch.setattr(reload_module, name, 0)


def watching(owner: Owner, story: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch the file while `story` runs."""
    in_no_time(monkeypatch)

    async def both() -> None:
        watch = asyncio.ensure_future(owner.reloader.watch())
        try:
            await story()
        finally:
            watch.cancel()

    run_on("asyncio", both)


def test_a_file_that_changes_is_read_once(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        before = list(owner.notices)
        # Of another size, as the clock of a file system may be a coarse one.
        owner.writes("allow: [another.example]\n")
        await until(lambda: owner.hosts == ["another.example"])
        for _ in range(10):
            await asyncio.sleep(0)

        assert before == []
        assert len(owner.notices) == 1

    watching(owner, story, monkeypatch)


def test_an_invalid_file_is_reported_once_and_fixed_by_the_old_one(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        good = owner.file.with_name("kept")
        owner.file.rename(good)
        await until(lambda: owner.notices)
        for _ in range(10):
            await asyncio.sleep(0)
        once = len(owner.notices)
        good.rename(owner.file)
        await until(lambda: len(owner.notices) > once)

        assert once == 1
        assert [notice.kind for notice in owner.notices] == ["policy-rejected", "policy-applied"]

    watching(owner, story, monkeypatch)


def test_the_owners_own_list_is_used_once_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    owner = Owner(tmp_path, awaited_allowlist=tmp_path / "own.yaml")

    async def story() -> None:
        owner.writes("allow: [own.example]\n", owner.own)
        await until(lambda: owner.hosts == ["own.example"])
        owner.writes("allow: [c.example]\n")  # the shipped one is of no interest any more
        for _ in range(10):
            await asyncio.sleep(0)

        assert owner.hosts == ["own.example"]
        assert owner.said[0] == f"Now using your own allowlist: {owner.own}"

    watching(owner, story, monkeypatch)


# --- policies and what narrows them


def test_an_invalid_restriction_is_reported_and_the_rest_applies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o700)
    narrowing = tmp_path / ".claude-proxy.yaml"
    narrowing.write_text("deny: [n.example]\n")
    owner = Owner(tmp_path, narrowing=narrowing)
    narrowing.write_text("allow: [everything.example]\n")
    owner.writes("allow: [b.example]\n")

    play(owner)

    assert owner.hosts == ["b.example"]
    assert [notice.kind for notice in owner.notices] == ["policy-applied", "policy-rejected"]
    assert "the project's restrictions file was rejected" in capsys.readouterr().err


def test_a_policy_reloads_when_one_of_its_files_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    own = tmp_path / "policies" / "deny.yaml"
    own.parent.mkdir(mode=0o700)
    owner = Owner(tmp_path, policy="deny", awaited_allowlist=tmp_path / "own.yaml")

    async def story() -> None:
        owner.writes("allow: [own.example]\n", owner.own)  # of no interest to a policy
        owner.writes("allow: [g.example]\n", own)
        await until(lambda: owner.hosts == ["g.example"])

        assert owner.said == [
            "Policy applied: + https://g.example ports 443; opens every request to https://g.example"
        ]

    watching(owner, story, monkeypatch)


# --- files that are being written


GUARDED = "allow: [a.example, b.example]\ndeny: [c.example]\n"


def looks(owner: Owner, *moments: float) -> list[list[str]]:
    """Look at the files at each moment, and return the hosts that are allowed after each."""
    found = []

    async def play() -> None:
        for moment in moments:
            await owner.reloader.look(moment)
            found.append(owner.hosts)

    run_on("asyncio", play)
    return found


def test_a_file_that_is_written_in_place_is_read_once_it_rests(owner: Owner) -> None:
    owner.writes("allow: [b.example]\n")

    assert looks(owner, 10, 11.9, 12) == [["a.example"], ["a.example"], ["b.example"]]
    assert len(owner.notices) == 1


def test_a_file_that_is_renamed_into_place_is_read_at_once(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "arrived_whole", lambda *_: True)
    owner.writes("allow: [b.example]\n")

    assert looks(owner, 10) == [["b.example"]]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (GUARDED, "allow: [a.example, b.example]\n"),
        (GUARDED, "allow: [a.example, b.example]\ndeny: [{host: c.example, methods: [POST]}]\n"),
    ],
    ids=["gone", "narrower"],
)
def test_a_file_that_loses_a_denial_must_rest_twice_as_long(
    owner: Owner, before: str, after: str
) -> None:
    owner.writes(before)
    play(owner)
    owner.writes(after)
    looks(owner, 10, 12, 13.9)
    assert len(owner.notices) == 1

    looks(owner, 14)

    assert [notice.kind for notice in owner.notices] == ["policy-applied"] * 2


def test_a_denial_that_is_written_later_is_never_lost(owner: Owner) -> None:
    owner.writes(GUARDED)
    play(owner)
    owner.writes("allow: [a.example, b.example]\n")
    looks(owner, 10, 12, 13.9)
    owner.writes(GUARDED)

    looks(owner, 14, 15.9, 16, 18)

    assert [rule.name for rule in policy_of(owner).deny] == ["c.example"]
    assert "deny" not in owner.said[-1]


def policy_of(owner: Owner) -> Policy:
    return owner.services.gate.policy


@pytest.mark.parametrize("text", ["", "\n", "# allow: [a.example]\n"])
def test_a_file_that_says_nothing_any_more_is_rejected(
    owner: Owner, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    owner.writes(text)

    assert looks(owner, 10, 12, 14)[-1] == ["a.example"]
    assert "the file says nothing" in capsys.readouterr().err
    assert [notice.kind for notice in owner.notices] == ["policy-rejected"]


def test_a_list_that_allows_nothing_in_so_many_words_applies(owner: Owner) -> None:
    owner.writes("allow: []\n")

    assert looks(owner, 10, 12)[-1] == []


def test_an_own_policy_that_is_gone_is_not_replaced_by_a_built_in_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o700)
    own = tmp_path / "policies" / "claude.yaml"
    own.parent.mkdir(mode=0o700)
    own.write_text("allow: [own.example]\n")
    own.chmod(0o600)
    owner = Owner(tmp_path, policy="claude")
    own.unlink()

    assert looks(owner, 10, 12, 14)[-1] == ["own.example"]
    assert "the file is gone" in capsys.readouterr().err


def test_a_change_that_no_time_stamp_shows_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    for module in (file_states, owner_files):
        monkeypatch.setattr(module, "fingerprint_of", lambda _: (1, 1, 1, 1, 1))
    owner = Owner(tmp_path)
    owner.writes("allow: [b.example]\n")

    assert looks(owner, 10) == [["b.example"]]


def test_any_number_of_requests_is_one_reload(owner: Owner) -> None:
    for _ in range(50):
        owner.reloader.request()

    looks(owner, 10, 11, 12)

    assert owner.said == ["Allowlist applied: no rule changed"]


def test_a_request_waits_for_a_file_that_is_being_written(owner: Owner) -> None:
    owner.writes("allow: [b.example]\n")
    owner.reloader.request()

    assert looks(owner, 10, 11, 12) == [["a.example"], ["a.example"], ["b.example"]]
    assert len(owner.said) == 1


def test_a_project_cannot_delay_the_owners_change(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    narrowing = tmp_path / ".claude-proxy.yaml"
    narrowing.write_text("deny: [n.example]\n")
    owner = Owner(tmp_path, narrowing=narrowing)
    owner.writes("allow: [b.example]\n")
    for moment in (10, 11, 12):
        narrowing.write_text(f"deny: [n{moment}.example]\n")
        looks(owner, moment)

    assert owner.hosts == ["b.example"]


def test_the_service_manager_is_told_of_a_reload_and_its_end(owner: Owner) -> None:
    told: list[str] = []

    class News:
        def ready(self) -> None: ...
        def stopping(self) -> None: ...

        def reloading(self) -> None:
            told.append("reloading")

        def reloaded(self) -> None:
            told.append("reloaded")

    owner.reloader._news = News()
    owner.writes("allow: [b.example]\n")
    for moment in (10, 11):
        owner.reloader.request()
        looks(owner, moment)
    assert told == ["reloading"]

    looks(owner, 12)

    assert told == ["reloading", "reloaded"]


def test_an_own_list_that_says_nothing_yet_does_not_replace_the_shipped_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o700)
    owner = Owner(tmp_path, awaited_allowlist=tmp_path / "own.yaml")
    owner.writes("", owner.own)

    assert looks(owner, 10, 12, 14)[-1] == ["a.example"]
    assert "says nothing" in capsys.readouterr().err

    owner.writes("allow: [own.example]\n", owner.own)
    assert looks(owner, 20, 22)[-1] == ["own.example"]


def test_a_list_that_keeps_changing_is_told_of(
    owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    for moment in range(10, 75):
        owner.writes(f"allow: [h{moment}.example]\n")
        looks(owner, moment)

    assert owner.hosts == ["a.example"]
    assert "has kept changing for a minute" in caplog.text


# --- asked for by somebody who waits for it


def asked(owner: Owner, *askers: None) -> list[str | BaseException]:
    """What each of so many who ask at the same time is told."""
    found: list[str | BaseException] = []

    async def ask() -> None:
        watching = asyncio.create_task(owner.reloader.watch())
        try:
            asking = (owner.reloader.apply_now() for _ in askers or (None,))
            found.extend(await asyncio.gather(*asking, return_exceptions=True))
        finally:
            watching.cancel()

    with pytest.MonkeyPatch.context() as patch:
        in_no_time(patch)
        run_on("asyncio", ask)
    return found


def test_who_asks_is_told_what_changed_once_it_is_in_force(owner: Owner) -> None:
    owner.writes("allow: [b.example]\n")

    (told,) = asked(owner)

    assert owner.hosts == ["b.example"]
    assert isinstance(told, str)
    assert "b.example" in told


def test_who_asks_is_told_why_a_list_is_rejected_and_where(owner: Owner) -> None:
    owner.writes("allow: [a.example, {host: b.example, metods: [GET]}]\n")

    (told,) = asked(owner)

    assert isinstance(told, ConfigError)
    assert "allowlist.yaml:1" in str(told.where)
    assert owner.hosts == ["a.example"]
    assert owner.reloader.is_rejected


def test_all_who_ask_are_told(owner: Owner) -> None:
    told = asked(owner, None, None, None)

    assert told == ["no rule changed"] * 3
