#!/usr/bin/env python3
"""WebSockets over HTTP/2 (RFC 8441), by the Python package `h2`, against the showcase.

    h2_client.py http://127.0.0.1:8000      prior knowledge
    h2_client.py https://127.0.0.1:8000     TLS, h2 by ALPN; the certificate is not verified

The frames of RFC 6455 are made here, apart from the engine under test.  `/version` has to say that
the server saw HTTP/2, on the very connection that the sockets are on.

Prints one line, `ok ...` or `FAILED ...`.  Exit status: 0 all held; 1 something did not; 64 wrong
arguments.
"""

import os
import socket
import ssl
import struct
import sys
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SOON = 30  # seconds for whatever is to come


def check(holds, what):
    if not holds:
        raise AssertionError(what)


class Client:
    """One connection."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.scheme, self.authority = parts.scheme, parts.netloc
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=SOON)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["h2", "http/1.1"])
            self.socket = context.wrap_socket(self.socket, server_hostname=parts.hostname)
            check(self.socket.selected_alpn_protocol() == "h2", "ALPN chose h2")
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.streams, self.ended = {}, None
        self.flush()
        # RFC 8441 section 4: not before the server has allowed it.
        allowed = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
        while self.h2.remote_settings.get(allowed, 0) != 1:
            self.pump()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def pump(self):
        """Reads once."""
        data = self.socket.recv(65536)
        check(data, f"the connection went on; it ended: {self.ended}")
        for event in self.h2.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", None))
            if isinstance(event, h2.events.ConnectionTerminated):
                self.ended = event
            elif isinstance(event, h2.events.ResponseReceived):
                stream.headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                check(event.data or event.stream_ended, "no DATA frame is empty")
                stream.data += event.data
                stream.frames += 1
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream.has_ended = True
            elif isinstance(event, h2.events.StreamReset):
                stream.has_ended, stream.reset = True, event.error_code
        self.flush()

    def request(self, headers, ends):
        number = self.h2.get_next_available_stream_id()
        stream = self.streams[number] = Stream(self, number)
        self.h2.send_headers(number, headers, end_stream=ends)
        self.flush()
        while stream.headers is None and not stream.has_ended:
            self.pump()
        check(stream.headers is not None, f"an answer, not a reset ({stream.reset})")
        return stream

    def get(self, path):
        stream = self.request(
            [(":method", "GET"), (":scheme", self.scheme), (":authority", self.authority), (":path", path)],
            True,
        )
        while not stream.has_ended:
            self.pump()
        return stream.headers[":status"], bytes(stream.data).decode()

    def connect(self, path, *headers):
        return self.request(
            [
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", self.scheme),
                (":authority", self.authority),
                (":path", path),
                ("sec-websocket-version", "13"),
                *headers,
            ],
            False,
        )

    def open(self, path):
        stream = self.connect(path)
        check(stream.headers[":status"] == "200", f"a 200: {stream.headers}")
        for name in ("content-length", "sec-websocket-accept", "upgrade", "connection"):
            check(name not in stream.headers, f"no {name}: {stream.headers}")
        return stream


class Stream:
    """One stream, a WebSocket mostly."""

    def __init__(self, client, number):
        self.client, self.number = client, number
        self.headers, self.reset, self.has_ended = None, None, False
        self.data, self.frames = bytearray(), 0

    def write(self, data):
        """In DATA frames as large as the windows let them be, as long as somebody wants it."""
        while data and self.reset is None:
            room = min(
                self.client.h2.local_flow_control_window(self.number),
                self.client.h2.max_outbound_frame_size,
            )
            if room == 0:
                self.client.pump()
                continue
            self.client.h2.send_data(self.number, data[:room])
            data = data[room:]
            self.client.flush()

    def send(self, opcode, payload=b""):
        self.write(frame(opcode, payload))

    def need(self, count):
        while len(self.data) < count:
            check(not self.has_ended, f"{count} bytes, not an end ({self.reset}) behind {bytes(self.data[:80])!r}")
            self.client.pump()

    def recv(self):
        """The next frame: its opcode and its payload."""
        self.need(2)
        check(self.data[0] & 0x70 == 0 and self.data[1] & 0x80 == 0, "no reserved bit, no mask")
        size, head = self.data[1], 2
        if size == 126:
            self.need(4)
            (size,), head = struct.unpack_from("!H", self.data, 2), 4
        elif size == 127:
            self.need(10)
            (size,), head = struct.unpack_from("!Q", self.data, 2), 10
        self.need(head + size)
        opcode, payload = self.data[0] & 15, bytes(self.data[head : head + size])
        del self.data[: head + size]
        return opcode, payload

    def expect(self, opcode, payload):
        got = self.recv()
        check(got == (opcode, payload), f"{opcode} {payload[:40]!r}, not {got[0]} {got[1][:40]!r}")

    def expect_close(self, code):
        opcode, payload = self.recv()
        check(opcode == CLOSE and payload[:2] == struct.pack("!H", code), f"a Close with {code}, not {opcode} {payload!r}")

    def expect_end(self):
        while not self.has_ended:
            self.client.pump()
        check(not self.data, f"nothing behind the Close: {bytes(self.data)!r}")
        # RFC 9113 section 8.1: a server that has said all may reset with NO_ERROR.
        check(self.reset in (None, h2.errors.ErrorCodes.NO_ERROR), f"a clean end, not {self.reset}")

    def close(self, code=1000):
        payload = struct.pack("!H", code)
        self.send(CLOSE, payload)
        self.expect(CLOSE, payload)
        self.expect_end()


def frame(opcode, payload):
    """A masked frame, whole (RFC 6455 section 5.2)."""
    size, mask = len(payload), os.urandom(4)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    pad = (mask * (size // 4 + 1))[:size]
    body = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return head + mask + body.to_bytes(size, "big")


def echoes(client):
    stream = client.open("/echo")
    for opcode, payload in [
        (TEXT, b"Hello"),
        (TEXT, b""),
        (TEXT, "\u00b5@\u00df\U0001f600".encode()),
        (BINARY, bytes(range(256))),
        (BINARY, os.urandom(65536)),
        (BINARY, os.urandom(1 << 20)),
    ]:
        stream.send(opcode, payload)
        stream.expect(opcode, payload)
    stream.send(PING, b"are you there")
    stream.expect(PONG, b"are you there")
    stream.close()


def codes(client):
    for code in (1000, 1001, 1008, 3000, 4999):
        client.open("/echo").close(code)
    stream = client.open("/echo")
    stream.send(CLOSE)
    stream.expect(CLOSE, b"")
    stream.expect_end()
    # The handler returns.
    stream = client.open("/echo")
    stream.send(TEXT, b"quit")
    stream.expect_close(1000)
    stream.send(CLOSE, struct.pack("!H", 1000))
    stream.expect_end()
    for wrong, code in [
        (b"\x81\x05Hello", 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(BINARY, b"x" * ((1 << 20) + 1)), 1009),
        (frame(CLOSE, struct.pack("!H", 1005)), 1002),
    ]:
        stream = client.open("/echo")
        stream.write(wrong)
        stream.expect_close(code)


def several(client):
    streams = [client.open("/echo") for _ in range(20)]
    for turn in range(10):
        for stream in streams:
            stream.send(TEXT, f"{stream.number} {turn}".encode())
    for turn in range(10):
        for stream in reversed(streams):
            stream.expect(TEXT, f"{stream.number} {turn}".encode())
    for stream in streams:
        stream.close()


def pushes(client):
    stream = client.open("/data")
    for count in range(3):
        opcode, payload = stream.recv()
        check(opcode == TEXT and payload.startswith(f"0 {count} ".encode()), f"a number, not {payload!r}")
    stream.send(CLOSE, struct.pack("!H", 1000))
    # More numbers may be on their way.
    while (got := stream.recv())[0] == TEXT:
        pass
    check(got == (CLOSE, struct.pack("!H", 1000)), f"a Close, not {got}")
    stream.expect_end()


def small_messages(client):
    """Each in a DATA frame of its own, all in one write."""
    neighbour, stream = client.open("/echo"), client.open("/echo")
    count = 10000
    for turn in range(count):
        while client.h2.local_flow_control_window(stream.number) < 100:
            client.flush()
            client.pump()
        client.h2.send_data(stream.number, frame(TEXT, b"%d" % turn))
    client.flush()
    for turn in range(count):
        stream.expect(TEXT, b"%d" % turn)
    neighbour.send(TEXT, b"undisturbed")
    neighbour.expect(TEXT, b"undisturbed")
    neighbour.close()
    stream.close()


def refusals(client):
    check(client.connect("/echo", ("origin", "http://evil.example")).headers[":status"] == "403", "a 403")
    check(client.connect("/nowhere").headers[":status"] == "404", "a 404")
    # A stream without a Close harms nobody.
    stream = client.open("/echo")
    client.h2.reset_stream(stream.number, h2.errors.ErrorCodes.CANCEL)
    stream = client.open("/echo")
    client.h2.end_stream(stream.number)
    client.flush()
    stream.expect_end()


def main():
    if len(sys.argv) != 2 or urlsplit(sys.argv[1]).port is None:
        print(__doc__.strip(), file=sys.stderr)
        return 64
    parts = (echoes, codes, several, pushes, small_messages, refusals)
    name = "connecting"
    try:
        client = Client(sys.argv[1])
        for part in parts:
            name = part.__name__
            part(client)
            status, version = client.get("/version")
            check((status, version) == ("200", "HTTP/2.0"), f"the server saw HTTP/2, not {status} {version}")
        check(client.ended is None, f"the connection went on: {client.ended}")
    except (AssertionError, OSError, h2.exceptions.ProtocolError) as error:
        print(f"FAILED {name}: {type(error).__name__}: {error}")
        return 1
    print(f"ok {len(parts)} parts on one connection of HTTP/2, {urlsplit(sys.argv[1]).scheme}, python h2 {h2.__version__}")
    return 0


sys.exit(main())
