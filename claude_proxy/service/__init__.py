"""Renders what a service manager and a packet filter are told of the proxy; pure.

Law kept: no quiet downgrade (11). What is to agree is told once: every file is made of the names in
`names.py` and one `Plan`, and a value that a file cannot hold is an error, never a guess. The
templates lie beside the code and say why each line is there. `installing.py` is what writes.
"""

from claude_proxy.service.launchd import plist_of
from claude_proxy.service.marks import Mark, marked, read_mark
from claude_proxy.service.names import Names, names_of
from claude_proxy.service.plan import Firewall, Kind, Plan, Scope, Unit
from claude_proxy.service.rendering import files_of, firewall_of

__all__ = [
    "Firewall",
    "Kind",
    "Mark",
    "Names",
    "Plan",
    "Scope",
    "Unit",
    "files_of",
    "firewall_of",
    "marked",
    "names_of",
    "plist_of",
    "read_mark",
]
