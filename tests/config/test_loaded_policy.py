"""A loaded policy is what was read, also in another process, and knows when it is stale."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.config.loaded_policy import Loaded
from claude_proxy.config.policy_files import load
from claude_proxy.wire.authority import Authority


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    file = tmp_path / "allowlist.yaml"
    file.write_text("allow: [one.example, {host: '*.two.example', methods: [GET]}]\n")
    return load(file)


def test_it_is_stale_once_one_of_its_files_has_changed(loaded: Loaded, tmp_path: Path) -> None:
    assert not loaded.is_stale

    (tmp_path / "allowlist.yaml").write_text("allow: []\n")

    assert loaded.is_stale


def test_it_arrives_as_it_was_sent(loaded: Loaded) -> None:
    found = pickle.loads(pickle.dumps(loaded))

    assert found == loaded
    assert found.policy.decide_connect(Authority.of("one.example", 443)).allowed
    assert not found.policy.decide_connect(Authority.of("three.example", 443)).allowed
    assert not found.is_stale


def test_it_is_received_without_what_reads_policies(loaded: Loaded) -> None:
    receive = "import pickle, sys; pickle.load(sys.stdin.buffer); print('yaml' in sys.modules)"

    ran = subprocess.run(
        [sys.executable, "-c", receive], input=pickle.dumps(loaded), capture_output=True, check=True
    )

    assert ran.stdout == b"False\n"
