"""Tests of the pages: their examples run, their links lead somewhere, and they name everything."""
