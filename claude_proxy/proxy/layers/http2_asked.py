"""A request on a stream of HTTP/2 that waits for the owner's answer, with what comes of its body.

Its stream's window bounds what is kept, as nothing of it is given back before the answer.
"""

from dataclasses import dataclass, field

from h2.events import DataReceived, Event

from claude_proxy.proxy.layers.asking import AwaitAnswer
from claude_proxy.proxy.layers.http2_fields import Http2Request


@dataclass(slots=True, eq=False, repr=False)
class AskedStream:
    """One request that is asked about; what else comes on its stream is worked off afterwards."""

    number: int
    request: Http2Request
    end: bool  # no body follows
    awaited: AwaitAnswer
    later: list[Event] = field(default_factory=list)

    def keep(self, event: Event) -> None:
        """Keep what comes, unless it is nothing."""
        if isinstance(event, DataReceived):
            empty = not event.flow_controlled_length and event.stream_ended is None
            if empty:
                return
        self.later.append(event)

    @property
    def size(self) -> int:
        """The bytes of the body that are kept."""
        return sum(
            len(event.data or b"") for event in self.later if isinstance(event, DataReceived)
        )
