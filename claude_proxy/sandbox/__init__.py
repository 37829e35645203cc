"""Runs a command in a sandbox that has no network but the proxy.

`plan` decides (pure), `facts` looks, `profiles` reads, `seccomp` and `seatbelt` write filters; the
rest does.
"""
