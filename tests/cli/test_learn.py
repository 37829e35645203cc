"""Laws of `learn`: it writes when told to, comments stay, and no record can smuggle a rule."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claude_proxy.audit.database import database_in
from claude_proxy.audit.store import AuditStore
from claude_proxy.cli import main
from claude_proxy.config.allowlist import loader
from claude_proxy.events import Notice, Phase
from claude_proxy.policy.patterns import PatternKind
from tests.audit.examples import MOMENT, a_decision, a_denial, an_outcome

PUBLIC = "93.184.216.34:443"
FOREVER = 1_000_000  # days
LIST = """\
# my list
allow:
  - docs.example.com  # why
deny:
  - evil.example.com
"""

type Learn = Callable[..., int]


class Log:
    """An audit log that a test fills."""

    def __init__(self, directory: Path) -> None:
        self.statedir = directory / "state"
        self._store = AuditStore(database_in(self.statedir), retention_days=FOREVER)
        self._numbers = count(MOMENT)

    def run(self, name: str) -> None:
        """Note that a run begins."""
        self._store.record(Notice(next(self._numbers), "run-start", f"run {name}: x", run=name))

    def allowed(self, target: str, path: str = "/", method: str = "GET", **facts: Any) -> None:
        """Record an allowed request and its outcome."""
        number = next(self._numbers)
        made = a_decision(number, target=f"{target}:443", path=path, method=method, **facts)
        number = self._store.record(made) or number
        self._store.record(an_outcome(number, upstream=PUBLIC))

    def denied(self, target: str, **facts: Any) -> None:
        """Record a tunnel that was denied."""
        tunnel = {"phase": Phase.CONNECT, "method": "CONNECT", "path": "", "scheme": ""}
        self._store.record(a_denial(next(self._numbers), target=target, **{**tunnel, **facts}))

    def close(self) -> None:
        """Write what is left."""
        self._store.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with closing(Log(tmp_path)) as log:
        yield log


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    confdir = tmp_path / "conf"
    confdir.mkdir()
    return confdir


@pytest.fixture
def allowlist(confdir: Path) -> Path:
    path = confdir / "allowlist.yaml"
    path.write_text(LIST, encoding="utf-8")
    return path


@pytest.fixture
def learn(log: Log, confdir: Path) -> Learn:
    def run(*words: str) -> int:
        log.close()
        places = ("--statedir", str(log.statedir), "--confdir", str(confdir))
        return main.main(["learn", *places, *words])

    return run


def test_nothing_is_written_without_apply(
    log: Log, learn: Learn, allowlist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.allowed("api.example.com", "/v1/items")

    assert learn() == 0

    said = capsys.readouterr().out
    assert "GET /v1/items  1 attempt" in said
    assert '+    paths: ["/v1/items"]' in said
    assert "Nothing was written" in said
    assert allowlist.read_text("utf-8") == LIST


def test_apply_keeps_comments_and_the_old_file(
    log: Log, learn: Learn, allowlist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowlist.chmod(0o640)
    log.allowed("api.example.com", "/v1/items")

    assert learn("--apply") == 0

    (backup,) = allowlist.parent.glob("allowlist.yaml.*.bak")
    assert backup.read_text("utf-8") == LIST
    assert {path.stat().st_mode & 0o777 for path in (backup, allowlist)} == {0o640}
    assert allowlist.read_text("utf-8") == LIST.replace(
        "deny:",
        '  - host: api.example.com\n    methods: [GET]\n    paths: ["/v1/items"]\ndeny:',
    )
    assert str(backup) in capsys.readouterr().out


def test_what_was_applied_is_learned_already(
    log: Log, learn: Learn, allowlist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.allowed("api.example.com", "/v1/items")
    learn("--apply")
    text = allowlist.read_text("utf-8")

    assert learn("--apply") == 0

    assert "nothing is to be added" in capsys.readouterr().out
    assert allowlist.read_text("utf-8") == text
    assert len(list(allowlist.parent.glob("*.bak"))) == 1


def test_a_policy_of_a_new_name_is_made(log: Log, learn: Learn, confdir: Path) -> None:
    log.run("one")
    log.allowed("api.example.com", "/v1/items", run="one")
    log.run("two")
    log.allowed("api.example.com", "/v2/items", run="two")

    assert learn("--run", "last", "--policy", "strict", "--apply") == 0

    text = (confdir / "policies" / "strict.yaml").read_text("utf-8")
    assert [str(rule) for rule in loader.load(text, name="x").allow] == [
        "https://api.example.com ports 443 methods GET paths /v2/items"
    ]


def test_a_list_that_does_not_exist_is_made(log: Log, learn: Learn, tmp_path: Path) -> None:
    log.allowed("api.example.com", "/v1/items")
    file = tmp_path / "new.yaml"

    assert learn("--allowlist", str(file), "--apply") == 0

    assert len(loader.load(file.read_text("utf-8"), name="x").allow) == 1
    assert file.stat().st_mode & 0o777 == 0o600


def test_json_tells_all_of_it(
    log: Log, learn: Learn, allowlist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, 5):
        log.allowed("api.example.com", f"/users/{number}")
    log.denied("docs.python.org:443")
    log.denied("*.evil.com:443", reason="invalid-target")

    assert learn("--json") == 0

    facts = json.loads(capsys.readouterr().out)
    assert (facts["file"], facts["attempts"], facts["applied"]) == (str(allowlist), 6, False)
    first, second = facts["entries"]
    assert (first["host"], first["written"], first["count"]) == ("api.example.com", True, 4)
    assert first["paths"][0] | {"globs": []} == {
        "shape": "/users/<number>",
        "globs": [],
        "count": 4,
        "different": 4,
        "first": "/users/1",
    }
    assert (second["host"], second["apart"], second["written"]) == (
        "docs.python.org",
        "hosts",
        False,
    )
    assert [each["subject"] for each in facts["left_out"]] == ["tunnel *.evil.com:443"]


def test_what_was_denied_can_be_left_aside(
    log: Log, learn: Learn, allowlist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.allowed("api.example.com", "/a")
    log.denied("api.example.com:443", phase=Phase.REQUEST, method="GET", path="/b", scheme="https")

    assert learn("--allowed", "--apply") == 0

    text = allowlist.read_text("utf-8")
    assert '"/a"' in text
    assert "/b" not in text
    assert "/b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--run", "nobody"], 'there was no run "nobody"'),
        (["--run", "last"], "there was no run yet"),
        (["--allowed", "--denied"], "leave nothing to learn from"),
        (["--preset", "nmp"], 'unknown preset "nmp"'),
        (["--preset", "npm", "--no-presets"], "exclude each other"),
        (["--include", "everything"], "is not one of"),
        (["--policy", "a", "--allowlist", "b"], "exclude each other"),
        (["--since", "soon"], "neither an age nor a time"),
    ],
)
def test_a_mistake_is_said(
    log: Log, learn: Learn, words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.allowed("api.example.com")

    assert learn(*words) != 0

    said = capsys.readouterr().err
    assert what in said
    assert "fix:" in said


def test_without_a_log_it_says_so(learn: Learn, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--statedir", "/nonexistent/place"]

    assert learn(*places) != 0

    assert "there is no audit log yet" in capsys.readouterr().err


def test_an_invalid_list_is_not_written(
    log: Log, learn: Learn, allowlist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowlist.write_text("allow: [a.example.com]\n", encoding="utf-8")
    log.allowed("api.example.com")

    assert learn("--apply") != 0

    assert "between brackets" in capsys.readouterr().err
    assert allowlist.read_text("utf-8") == "allow: [a.example.com]\n"


# --- records that a hostile client has made

HOSTILE = (
    "/x\n  - host: '*.com'",
    '/x"]\n  - ".com"',
    "/**",
    "/*",
    "/a/**",
    "/\x1b]0;owned\x07",
    "/\x00",
    "/%0a- evil.com",
    "/..%2f..%2f",
    "/a#b: c",
    "/&anchor *alias !!python/object:x",
    "/{{x}}",
    "/a\u202eb",
    "/x" * 600,
    "x",
    "",
    "*",
    "?",
)
HOSTILE_TARGETS = (
    "*.com:443",
    "*:443",
    ".com:443",
    "com:443",
    "a.com:443\n- b.com:443",
    '"a.com":443',
    "a.com: 443",
    "0.0.0.0/0:443",
    "::/0",
    "[::]:443",
    "a.com:0",
    "yes:443",
    "null:443",
    "1e5:443",
    "!!str.com:443",
    "A.EXAMPLE.COM.:443",
    "xn--a:443",
)


@pytest.mark.parametrize("include", [(), ("--include", "all")])
def test_a_hostile_record_opens_one_host_at_most(
    log: Log, learn: Learn, allowlist: Path, include: tuple[str, ...], capfd: Any
) -> None:
    for path in HOSTILE:
        log.allowed("api.example.com", path)
    for target in HOSTILE_TARGETS:
        log.denied(target)
        log.denied(target, phase=Phase.REQUEST, method="GET\n- x", path="/x", scheme="https")

    assert learn("--apply", *include) == 0

    said = capfd.readouterr().out
    assert all(character == "\n" or character.isprintable() for character in said)
    policy = loader.load(allowlist.read_text("utf-8"), name="x")
    before = loader.load(LIST, name="x")
    kinds = {rule.pattern.kind for rule in policy.allow}
    assert kinds <= {PatternKind.EXACT, PatternKind.LITERAL}
    assert set(map(str, policy.deny)) == set(map(str, before.deny))
    globs = {glob.text for rule in policy.allow for glob in rule.paths or ()}
    assert not any("*" in glob for glob in globs)
    if not include:
        assert all(rule.paths for rule in policy.allow if rule.name == "api.example.com")


TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(HOSTILE),
    st.text("/*.;%-_:{}[]\"'\n\\#&!|>", max_size=12),
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(["a.example.com", "b.example.com"]), TEXTS),
            TEXTS,
            st.one_of(st.sampled_from(["GET", "POST"]), TEXTS),
        ),
        max_size=8,
    )
)
def test_whatever_is_recorded_the_list_stays_narrow_and_valid(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[str, str, str]]
) -> None:
    directory = tmp_path_factory.mktemp("log")
    log = Log(directory)
    for target, path, method in asked:
        log.allowed(target, f"/{path}", method)
    log.close()
    file = directory / "allowlist.yaml"
    words = ["--statedir", str(log.statedir), "--confdir", str(directory)]

    code = main.main(["learn", *words, "--allowlist", str(file), "--apply", "--no-presets"])

    assert code == 0
    if file.exists():
        rules = loader.load(file.read_text("utf-8"), name="x").allow
        assert {rule.pattern.kind for rule in rules} <= {PatternKind.EXACT, PatternKind.LITERAL}
        assert all(rule.methods and rule.paths for rule in rules)
        hosts = {target.lower().rstrip(".") for target, _, _ in asked}
        assert {rule.name for rule in rules} <= hosts
