"""The ports that loopback leads to, as the kernel's table of sockets has them."""

import os
import socket

from claude_proxy.system import listening_ports

TABLE = b"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   1: 00000000:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   2: 0100007F:0BBA 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0
   3: 0200007F:0BBB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   4: 00000000000000000000000001000000:0BBC 00000000000000000000000000000000:0000 0A 0:0
   5: 00000000000000000000000000000000:0BBD 00000000000000000000000000000000:0000 0A 0:0
   6: B80D0120000000000000000001000000:0BBE 00000000000000000000000000000000:0000 0A 0:0
"""


def test_those_that_listen_where_loopback_leads_are_found_and_no_others() -> None:
    assert sorted(listening_ports.ports_in(TABLE)) == [3000, 3001, 3004, 3005]


def test_a_table_that_is_cut_off_or_empty_has_what_it_has() -> None:
    assert [*listening_ports.ports_in(b"")] == []
    assert [*listening_ports.ports_in(TABLE[:110])] == []


def test_a_listener_is_seen_while_it_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        assert port in listening_ports.of_this_machine()
    assert port not in listening_ports.of_this_machine()


def test_an_open_table_shows_what_is_new() -> None:
    table = os.open(listening_ports.TABLES[0], os.O_RDONLY)
    before = listening_ports.of_tables((table,))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        new = listening_ports.of_tables((table,)) - before

        assert listener.getsockname()[1] in new
    os.close(table)
