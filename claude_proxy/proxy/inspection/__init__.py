"""Inspectors of responses: the leak guard and the usage meter."""
