"""The proxy as a service of systemd or launchd: its files, rendered and installed.

Keeps "no quiet downgrade": every file is rendered from the names in `names` and one `ServicePlan`,
and a value that a file cannot contain is an error. Rendering is pure; only `installer` writes.
"""
