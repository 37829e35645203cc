"""Runs the command line for `python -m claude_proxy`."""

import sys

from claude_proxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
