"""Plans of containers; pure."""
