"""Renders what a service manager and a packet filter are told of the proxy; pure.

Law kept: no quiet downgrade (11). What is to agree is told once: every file is made of the names in
`names.py` and one `Plan`, and a value that a file cannot hold is an error, never a guess. The
templates lie beside the code and say why each line is there. `installing.py` is what writes.
"""
