"""What a process and those below it use is counted; of one that is gone nothing is known."""

import os
import subprocess
import sys

from claude_proxy.sandbox.container.process_usage import usage_of


def test_a_process_is_counted_with_its_children() -> None:
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE):
        found = usage_of(os.getpid())

        assert found is not None
        assert found.processes >= 2
        assert found.memory > 0
        assert found.age_s >= 0


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()

    assert usage_of(ended.pid) is None
