"""Templates: a name without a value is a programming error."""

import pytest

from claude_proxy.server.service.template_files import filled


def test_a_template_with_an_unknown_name_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        filled("sysusers.conf", {})
