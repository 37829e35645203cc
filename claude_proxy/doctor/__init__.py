"""Looks at an installation, its clients, its sandbox, and tells what is wrong and how to fix it.

The laws kept here: looking changes nothing, and no look is taken for more than it was. A check
that could not be made is an error of its own, never "ok", and a way out that could not be tried
is never "stopped".
"""
