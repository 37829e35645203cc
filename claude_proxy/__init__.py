"""claude-proxy, the egress firewall for Claude Code and other coding agents."""

__version__ = "0.1.0"
