"""A file that is too large is refused before it is read."""

import pytest

from claude_proxy.config.strict_yaml.file_text import MAX_BYTES, decode
from claude_proxy.config.strict_yaml.nodes import Problems, parse
from claude_proxy.errors import ConfigError


def test_a_huge_file_is_refused_before_it_is_read() -> None:
    with pytest.raises(ConfigError, match="larger than 32 MiB"):
        decode(b"#" * (MAX_BYTES + 1), "f.yaml")
    with pytest.raises(ConfigError, match="larger than 32 MiB"):
        parse("#" * (MAX_BYTES + 1), Problems("f.yaml"))
