"""Holds the certificate authority: the one key whose theft would undo everything.

The laws kept here are the ninth and the tenth: the CA's key is read and written by its owner
alone and appears nowhere else, and a CA that others could have changed is refused.
"""
