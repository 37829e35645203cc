"""Report of a relay to its launcher: the names that were looked up past the proxy; pure.

`name_lookups` writes it. The launcher only reads it, and so does not import a relay.
"""

ASK = b"names?"  # what the launcher sends
REPORT_LIMIT = 64 * 1024


def parse_report(report: bytes) -> tuple[int, list[tuple[str, int, str]]]:
    """Return the queries for names beyond the limit, and each name, its lookups and a program.

    Raises ValueError if a report is incomplete.
    """
    others, *lines = report.decode("utf-8", "replace").split("\n")
    found = []
    for line in lines:
        times, name, program = line.split(" ", 2)
        found.append((name, int(times), program))
    return int(others), found
