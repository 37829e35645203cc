"""The certificate authority, the system's roots, and what makes each client trust them.

Keeps "secrets stay outside" and "the sandbox cannot move its own wall": only its owner reads and
writes the CA key, which appears nowhere else, and a CA that others could have changed is refused.
"""
