"""The ports of other protocols are none of the web's."""

from claude_proxy.policy.raw_ports import NEVER_TLS_FIRST, RAW_PORTS
from claude_proxy.policy.rules import WEB_PORTS


def test_no_port_of_the_web_is_one_of_another_protocol() -> None:
    assert not WEB_PORTS & RAW_PORTS.keys()
    assert not {8080, 8443} & RAW_PORTS.keys()
    assert NEVER_TLS_FIRST.keys() < RAW_PORTS.keys()
