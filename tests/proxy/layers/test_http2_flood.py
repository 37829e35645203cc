"""The laws of the flood meter: what moves something is never too much, what moves nothing is."""

import pytest
from h2.errors import ErrorCodes

from claude_proxy.proxy.layers.http2_flood import (
    IDLE_FRAMES,
    IDLE_FRAMES_PER_USEFUL,
    RESETS,
    SETTINGS_ENTRIES,
    FloodMeter,
)
from claude_proxy.proxy.layers.http2_frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    Http2Error,
)


def frame(kind: int, size: int = 0, flags: int = 0) -> Frame:
    return Frame(kind, flags, 1, bytes(9 + size))


def receives(meter: FloodMeter, sent: Frame, times: int) -> None:
    for _ in range(times):
        meter.received(sent)


@pytest.mark.parametrize("sent", [frame(HEADERS, 20), frame(DATA, 1), frame(DATA, 0, END_STREAM)])
def test_what_moves_something_is_never_too_much(sent: Frame) -> None:
    receives(FloodMeter(), sent, 20 * IDLE_FRAMES)


@pytest.mark.parametrize(
    "sent",
    [
        frame(DATA),
        Frame(DATA, PADDED, 1, bytes(9) + b"\x05" + bytes(5)),
        frame(PING, 8),
        frame(PRIORITY, 5),
        frame(WINDOW_UPDATE, 4),
        frame(CONTINUATION, 1),
        frame(0xF0),
    ],
)
def test_what_moves_nothing_is_bounded(sent: Frame) -> None:
    meter = FloodMeter()
    receives(meter, sent, IDLE_FRAMES)

    with pytest.raises(Http2Error) as caught:
        meter.received(sent)

    assert caught.value.code == ErrorCodes.ENHANCE_YOUR_CALM


def test_window_updates_for_what_we_send_are_expected() -> None:
    meter = FloodMeter()
    for _ in range(IDLE_FRAMES):
        meter.sent_data()
        receives(meter, frame(WINDOW_UPDATE, 4), IDLE_FRAMES_PER_USEFUL)


def test_settings_are_bounded_by_their_entries_and_for_good() -> None:
    meter = FloodMeter()
    meter.received(frame(SETTINGS, 6 * (SETTINGS_ENTRIES - 1)))
    meter.renew()
    meter.received(frame(SETTINGS, 6))

    with pytest.raises(Http2Error):
        meter.received(frame(SETTINGS, 6))


def test_resets_are_bounded_in_a_window_and_counted_anew_in_the_next() -> None:
    meter = FloodMeter()
    for _ in range(3):
        for _ in range(RESETS):
            meter.reset()
        meter.renew()
    is_zero = meter.is_zero
    for _ in range(RESETS):
        meter.reset()

    with pytest.raises(Http2Error) as caught:
        meter.reset()

    assert is_zero
    assert caught.value.code == ErrorCodes.ENHANCE_YOUR_CALM
