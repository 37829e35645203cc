"""SELinux counts where the kernel enforces it."""

from pathlib import Path

import pytest

from claude_proxy.system.selinux import is_enforced


@pytest.mark.parametrize(("text", "enforced"), [("1", True), ("1\n", True), ("0", False)])
def test_it_is_enforced_where_the_kernel_says_so(
    tmp_path: Path, text: str, *, enforced: bool
) -> None:
    file = tmp_path / "enforce"
    file.write_text(text)

    assert is_enforced(file) is enforced


def test_a_kernel_without_it_enforces_nothing(tmp_path: Path) -> None:
    assert not is_enforced(tmp_path / "enforce")
