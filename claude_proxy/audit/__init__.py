"""Writes down every decision, and reads the record back.

The law it keeps is the seventh: recorded or denied. `database` opens the file or says why
not, `store` is the one writer, `checkpoint` does what must wait for a disk, `queries` only
reads, `sinks` print and are never what a decision waits for, no more than `learn`.
"""
