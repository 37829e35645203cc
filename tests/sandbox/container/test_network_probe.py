"""The probe of a container's network tells what is there, with a Python that is lent to it."""

import json
import subprocess
from pathlib import Path

from claude_proxy.sandbox.container.lent_python import INSIDE, lend
from tests.conftest import FindProgram


def test_it_tells_what_leads_out_where_there_is_no_python(
    tmp_path: Path, program: FindProgram
) -> None:
    lent = lend(tmp_path, "network_probe")
    view = ["--ro-bind", str(lent.directory), str(INSIDE), "--proc", "/proc", "--dev", "/dev"]
    targets = ("3128", "api.anthropic.com:443", "mozilla.org:443")
    words = [program("bwrap"), "--unshare-all", *view, "--", *lent.words("network_probe", *targets)]

    ran = subprocess.run(words, capture_output=True, text=True, check=False)

    found = json.loads(ran.stdout)
    assert (found["interfaces"], found["routes"]) == (["lo"], 0)
    assert found["direct"] == "network is unreachable"
    assert (found["allowed"], found["denied"]) == (None, None)  # nobody listens there
