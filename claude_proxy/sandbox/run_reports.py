"""What the user reads when a run has ended: denials, what was not recorded, names looked up."""

from collections.abc import Callable, Iterator

from claude_proxy.config.settings import AuditFailure
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.lookups import NameLookups
from claude_proxy.sandbox.run_spec import RunSpec

type Reporter = Callable[[str], None]


def report_unrecorded(
    run_spec: RunSpec, unrecorded: tuple[int, ClaudeProxyError] | None, say: Reporter
) -> None:
    """Say what the record does not show, because it could not be written."""
    if unrecorded is None:
        return
    count, why = unrecorded
    denied = run_spec.settings.audit_failure is AuditFailure.DENY
    then = "were denied" if denied else "were decided without a record"
    _, *details = why.lines()
    say(
        f"warning: {count} connections and requests of this run {then}, because they could not be "
        f"recorded: {why.what}"
    )
    for line in details:
        say(line)


def load() -> None:
    """Import what `report_denials` needs, where there is time for it."""
    from claude_proxy.audit import denials, queries  # noqa: F401, PLC0415 - SQLite


def report_denials(run_spec: RunSpec, name: str, began_ns: int, say: Reporter) -> None:
    """Say what was denied in the run, which COMMAND may have shown as a mere failure."""
    from claude_proxy.audit.database import FILE_NAME  # noqa: PLC0415 - SQLite
    from claude_proxy.audit.denials import summary  # noqa: PLC0415 - as above
    from claude_proxy.audit.queries import AuditReader, RunFilter  # noqa: PLC0415 - as above

    settings = run_spec.settings
    try:
        with AuditReader(settings.statedir / FILE_NAME) as reader:
            rows = reader.denials(RunFilter(name), since_ns=began_ns)
    except ClaudeProxyError:
        return  # the exit code of COMMAND must not be lost
    # A proxy that is joined has a list of its own, whose name is not known here.
    options = settings.list_options if run_spec.join is None else ()
    more = f"claude-proxy log --run {name} --denied"
    heading = "denied in this run: {}"
    for line in summary(rows, options=options, more=more, heading=heading):
        say(line)


def lookup_lines(lookups: NameLookups) -> Iterator[str]:
    """Yield what to say of names that were looked up past the proxy."""
    for line in lookups.lines():
        yield f"note: {line}"
    if lookups.names:
        yield (
            "note: inside, only the proxy resolves names: such a program has to be told to use "
            "the proxy in HTTPS_PROXY (an option or a setting of its own), or the run started with "
            "--transparent on, which leads such programs to the proxy"
        )
    ssh = next((one.name for one in lookups.names if one.program == "ssh"), None)
    if ssh is not None:
        yield (
            f"note: for git, HTTPS is the way: where the list allows {ssh} (claude-proxy allow "
            f"{ssh}), git in a run uses it for git@{ssh}: by itself"
        )
