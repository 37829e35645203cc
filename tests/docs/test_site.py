"""The pages build as a site, strictly: a link or an anchor that leads nowhere is an error."""

import subprocess
import sys
from pathlib import Path

from tests.docs import texts


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "--nitpicky"]
    places = ["-d", str(tmp_path / "doctrees"), str(texts.ROOT / "docs"), str(tmp_path / "site")]

    done = subprocess.run(
        [*sphinx, "--quiet", *places], capture_output=True, text=True, check=False, timeout=300
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "site" / "index.html").is_file()
