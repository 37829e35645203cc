"""Which shells a root has is seen from outside, and a link counts."""

import os

from claude_proxy.sandbox.container import image_shell


def test_the_shells_of_this_machine_are_found_the_best_first() -> None:
    found = image_shell.shells_of(os.getpid())

    assert "sh" in found
    assert [*found] == [name for name in image_shell.SHELLS if name in found]


def test_where_nobody_may_look_all_of_them_are_tried() -> None:
    assert image_shell.shells_of(2**22 + 1) == image_shell.SHELLS
