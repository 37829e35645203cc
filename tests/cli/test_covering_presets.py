"""Which presets would cover what is asked about."""

from pathlib import Path

from claude_proxy.cli.covering_presets import presets_for
from claude_proxy.control.answers import facts_of_subject
from claude_proxy.policy.questions import Access, Subject
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority


def question(host: str, access: Access = Access.READ) -> dict[str, object]:
    subject = Subject("r", Scheme.HTTPS, Authority.of(host, 443), access)
    return {**facts_of_subject(subject), "method": "GET", "path": "/simple/requests/?x=1"}


def test_a_preset_that_covers_a_request_is_named(tmp_path: Path) -> None:
    assert "pypi" in presets_for(question("any.pypi.org"), str(tmp_path))


def test_what_no_preset_covers_has_none(tmp_path: Path) -> None:
    assert presets_for(question("nobody.example"), str(tmp_path)) == []
    assert presets_for(question("any.pypi.org", Access.TUNNEL), str(tmp_path)) == []
    assert presets_for({}, str(tmp_path)) == []
