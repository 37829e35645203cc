"""Writes down every decision, and reads the record back.

The law it keeps is the seventh: recorded or denied. `database` opens the file or says why
not, `store` is the one writer, `checkpoint` does what must wait for a disk, `queries` only
reads, `sinks` print and are never what a decision waits for, no more than `learn`.
"""

from claude_proxy.audit.database import database_in
from claude_proxy.audit.learn import Learner
from claude_proxy.audit.sinks import ConsoleSink, Descriptor, JsonlSink, Sink
from claude_proxy.audit.store import AuditStore

__all__ = ["AuditStore", "ConsoleSink", "Descriptor", "JsonlSink", "Learner", "Sink", "database_in"]
