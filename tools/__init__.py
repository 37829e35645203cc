"""Holds the scripts by which the Makefile sets things up."""
