"""Import of other programs' lists: their configuration files to policy files."""
