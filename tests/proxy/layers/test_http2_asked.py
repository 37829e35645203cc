"""What comes on a stream that waits is kept, as far as it is something."""

from h2.events import DataReceived, StreamEnded

from claude_proxy.policy.questions import Facts, subject_of_request
from claude_proxy.proxy.layers.asking import AwaitAnswer
from claude_proxy.proxy.layers.http2_asked import AskedStream
from claude_proxy.proxy.layers.http2_fields import read_request
from tests.policy.cases import request


def test_content_and_the_end_are_kept_and_empty_frames_are_not() -> None:
    fields = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"a.test"),
        (b":path", b"/"),
    ]
    facts = Facts(subject_of_request("r", request("a.test")), "GET", "/", "", None)
    asked = AskedStream(1, read_request(fields, limit=1000, end=True), True, AwaitAnswer(facts))

    for event in (
        DataReceived(stream_id=1, data=b"body", flow_controlled_length=4),
        DataReceived(stream_id=1, data=b"", flow_controlled_length=0),
        StreamEnded(stream_id=1),
    ):
        asked.keep(event)

    assert (len(asked.later), asked.size) == (2, 4)
