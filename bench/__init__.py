"""Measures claude-proxy beside other proxies, and soaks it; README.md here tells how."""
