"""Speaks HTTP/2 as an origin, with the h2 library: enough to echo and to stream."""

import json
import socket

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
)

from .origin import Arrival, Exchange, Origin


def serve_http2(stream: socket.socket, arrival: Arrival, origin: Origin) -> None:
    """Echo every request of one HTTP/2 connection."""
    config = H2Configuration(client_side=False, header_encoding="utf-8")
    connection = H2Connection(config)
    connection.initiate_connection()
    stream.sendall(connection.data_to_send())
    exchanges: dict[int, Exchange] = {}
    while data := stream.recv(64 * 1024):
        for event in connection.receive_data(data):
            if isinstance(event, ConnectionTerminated):
                return
            _obey(event, connection, exchanges, arrival, origin)
        stream.sendall(connection.data_to_send())


def _obey(
    event: Event,
    connection: H2Connection,
    exchanges: dict[int, Exchange],
    arrival: Arrival,
    origin: Origin,
) -> None:
    match event:
        case RequestReceived():
            headers = [(str(name), str(value)) for name, value in event.headers or ()]
            fields = dict(headers)
            exchange = Exchange(
                arrival, fields[":method"], fields[":path"], b"", headers, version="HTTP/2"
            )
            exchanges[event.stream_id] = exchange
            origin.exchanges.append(exchange)
        case DataReceived():
            exchanges[event.stream_id].took_in(event.data or b"")
            connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        case StreamEnded():
            exchange = exchanges[event.stream_id]
            exchange.complete = True
            _answer(connection, event.stream_id, exchange)


def _answer(connection: H2Connection, stream_id: int, exchange: Exchange) -> None:
    told = {
        "method": exchange.method,
        "target": exchange.target,
        "headers": exchange.headers,
        "body": exchange.body.decode("latin-1"),
    }
    body = json.dumps(told).encode()
    fields = [(":status", "200"), ("content-type", "application/json")]
    connection.send_headers(stream_id, fields)
    connection.send_data(stream_id, body, end_stream=True)
