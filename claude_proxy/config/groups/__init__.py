"""Groups files in TOML, the format of bw-claude."""
