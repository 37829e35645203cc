"""Diagnosis of an installation, its clients and its sandbox, with a fix for each problem.

Laws kept: a check changes nothing, and a result never claims more than was seen. A check that could
not be made is an error, never "ok"; an attack that could not be tried is never "stopped".
"""
