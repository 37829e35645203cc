"""Reads and writes wire formats without doing I/O: bytes in, facts and errors out, and back.

Nothing here decides what is allowed; it only makes sure that what is judged is what is sent.
"""
