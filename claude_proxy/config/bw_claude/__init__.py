"""Groups files in TOML, the format of bw-claude: read for `claude-proxy import` alone."""
