"""Schema of the audit file: its versions, how each becomes the next, and views of older ones.

Law: an older file stays readable. A proxy migrates the file when it starts; a reader that comes
first, and may not write, reads the older tables through views with the newest columns. Pure text.
"""

from typing import Final

# "clpx" tells these files from any other SQLite database.
APPLICATION_ID: Final = 0x636C7078


def _program_of(command: str) -> str:
    """Return the SQL of a command line's first word, without its directories."""
    word = f"substr({command}, 1, instr({command} || ' ', ' ') - 1)"
    return f"replace({word}, rtrim({word}, replace({word}, '/', '')), '')"


def _until_colon(text: str) -> str:
    return f"substr({text}, 1, instr({text}, ': ') - 1)"


def _after_colon(text: str) -> str:
    return f"substr({text}, instr({text}, ': ') + 2)"


# "PEER, run NAME: COMMAND LINE" and "run NAME: COMMAND LINE" as versions 1 and 2 wrote them.
_ANNOUNCED: Final = "substr(client, instr(client, ', run ') + 6)"
_RUN_OF_CLIENT: Final = _until_colon(_ANNOUNCED)
_CLIENT_WITH_PROGRAM: Final = (
    f"substr(client, 1, instr(client, ', run ') + 5) || {_RUN_OF_CLIENT} || ': ' || "
    + _program_of(_after_colon(_ANNOUNCED))
)
_RUN_OF_TEXT: Final = f"substr({_until_colon('text')}, 5)"
_TEXT_WITH_PROGRAM: Final = (
    f"CASE kind WHEN 'run-end' THEN text ELSE {_until_colon('text')} || ': ' || "
    f"{_program_of(_after_colon('text'))} END"
)
_OLD_RUN: Final = f"CASE WHEN instr(client, ', run ') THEN {_RUN_OF_CLIENT} END"
_OLD_CLIENT: Final = (
    f"CASE WHEN instr(client, ', run ') THEN {_CLIENT_WITH_PROGRAM} ELSE client END"
)
_IS_OF_A_RUN: Final = "kind IN ('run-start', 'run-end') AND text LIKE 'run %: %'"
_OLD_RUN_OF_NOTICE: Final = f"CASE WHEN {_IS_OF_A_RUN} THEN {_RUN_OF_TEXT} END"
_OLD_TEXT: Final = f"CASE WHEN {_IS_OF_A_RUN} THEN {_TEXT_WITH_PROGRAM} ELSE text END"

# Entry N brings a file from version N to version N + 1. Entries are added, never edited.
# Rows are stored in the order of their ids, so a table grows at its end and is trimmed at its
# start; another index would double the cost of every decision to speed up a rare query.
MIGRATIONS: Final = (
    """
    CREATE TABLE decision(
        id INTEGER PRIMARY KEY,
        connection INTEGER NOT NULL,
        client TEXT NOT NULL,
        listener TEXT NOT NULL,
        phase TEXT NOT NULL,
        scheme TEXT NOT NULL,
        target TEXT NOT NULL,
        method TEXT NOT NULL,
        path TEXT NOT NULL,
        allowed INTEGER NOT NULL,
        reason TEXT NOT NULL,
        rule TEXT,
        rule_source TEXT
    ) STRICT;
    CREATE TABLE outcome(
        decision INTEGER PRIMARY KEY,
        status INTEGER,
        bytes_up INTEGER NOT NULL,
        bytes_down INTEGER NOT NULL,
        duration_ms REAL NOT NULL,
        first_byte_ms REAL,
        upstream TEXT,
        error TEXT
    ) STRICT;
    CREATE TABLE notice(
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        text TEXT NOT NULL
    ) STRICT;
    CREATE TABLE checkpoint(at INTEGER NOT NULL) STRICT;
    INSERT INTO checkpoint VALUES(0);
    """,
    # The index contains only requests with a credential, so other decisions cost nothing more, and
    # a flood of denials does not slow down ceilings. Usage has its own table, as few attempts have
    # any: adding it up reads nothing else.
    """
    ALTER TABLE decision ADD COLUMN credential TEXT;
    CREATE INDEX request_by_credential ON decision(credential, id)
        WHERE credential IS NOT NULL AND allowed AND phase = 'request';
    CREATE TABLE usage(
        decision INTEGER PRIMARY KEY,
        client TEXT,
        credential TEXT,
        model TEXT NOT NULL,
        tokens_in INTEGER NOT NULL,
        tokens_out INTEGER NOT NULL,
        cache_written INTEGER NOT NULL,
        cache_read INTEGER NOT NULL
    ) STRICT;
    """,
    # A column of the newer kind is NULL in most rows, which costs a byte: `at` where the id is the
    # time, `count` and `last` of a denial that was not repeated, `attempt` of a first decision.
    # Until this version `client` held the command line of a run, which may contain a secret: only
    # its program stays, here as in new rows.
    f"""
    ALTER TABLE decision ADD COLUMN run TEXT;
    ALTER TABLE decision ADD COLUMN attempt INTEGER;
    ALTER TABLE decision ADD COLUMN at INTEGER;
    ALTER TABLE decision ADD COLUMN count INTEGER;
    ALTER TABLE decision ADD COLUMN last INTEGER;
    CREATE INDEX later_denial ON decision(attempt) WHERE attempt IS NOT NULL;
    ALTER TABLE usage ADD COLUMN run TEXT;
    ALTER TABLE usage ADD COLUMN at INTEGER;
    ALTER TABLE notice ADD COLUMN run TEXT;
    ALTER TABLE notice ADD COLUMN at INTEGER;
    UPDATE decision SET run = {_RUN_OF_CLIENT}, client = {_CLIENT_WITH_PROGRAM}
        WHERE instr(client, ', run ');
    UPDATE usage SET run = {_RUN_OF_CLIENT}, client = {_CLIENT_WITH_PROGRAM}
        WHERE instr(client, ', run ');
    UPDATE notice SET run = {_RUN_OF_TEXT}, text = {_TEXT_WITH_PROGRAM}
        WHERE {_IS_OF_A_RUN}
    """,  # noqa: S608 - constants of this module
)

# What a reader of an older version creates in its own temporary schema, where it hides the tables.
_OF_VERSION_2: Final = f"""
    CREATE TEMP VIEW decision AS SELECT id, connection, {_OLD_CLIENT} AS client, listener, phase,
        scheme, target, method, path, allowed, reason, rule, rule_source, credential,
        {_OLD_RUN} AS run, NULL AS attempt, NULL AS at, NULL AS count, NULL AS last
        FROM main.decision;
    CREATE TEMP VIEW notice AS SELECT id, kind, {_OLD_TEXT} AS text, {_OLD_RUN_OF_NOTICE} AS run,
        NULL AS at FROM main.notice;
    CREATE TEMP VIEW usage AS SELECT decision, {_OLD_CLIENT} AS client, credential, model,
        tokens_in, tokens_out, cache_written, cache_read, {_OLD_RUN} AS run, NULL AS at
        FROM main.usage
    """  # noqa: S608 - constants of this module
_OF_VERSION_1: Final = (
    _OF_VERSION_2.replace("rule_source, credential", "rule_source, NULL AS credential").partition(
        "CREATE TEMP VIEW usage"
    )[0]
    + """
    CREATE TEMP TABLE usage(decision, client, credential, model, tokens_in, tokens_out,
        cache_written, cache_read, run, at)
    """
)
VIEWS_OF_OLDER: Final = {1: _OF_VERSION_1, 2: _OF_VERSION_2}
