"""The laws of claude-proxy, each as a test that bears its name."""
