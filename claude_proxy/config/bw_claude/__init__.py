"""Groups files in TOML, the format of bw-claude: read only by `claude-proxy import`."""
