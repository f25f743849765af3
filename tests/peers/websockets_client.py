#!/usr/bin/env python3
"""Drives an echo server with the Python package websockets, under every offer of compression.

    websockets_client.py --url ws://127.0.0.1:9001/ [--expect deflate|none] [--insecure]

An offer of permessage-deflate (RFC 7692) has four parameters.  Each combination gets a connection
of its own: server_no_context_takeover and client_no_context_takeover absent or there,
server_max_window_bits absent or 9 to 15, client_max_window_bits absent, without a value or 9 to
15; 288 in all.  Two more offer a window of 8 bits to the server, which it may decline.  Each
connection exchanges text, binary, empty, large and fragmented messages, several times, so that a
kept window is used, and closes with 1000.

--expect deflate  every offer must be agreed to (default), but for the window of 8 bits.  The
                  answer must be one that the offer allows (RFC 7692 section 7.1), and a large text
                  must come back in fewer bytes.
--expect none     no offer may be agreed to; the messages must come back all the same
--insecure        takes any certificate of a wss:// server

Prints a line for each group of offers, 'ok' or 'FAIL', and last 'N passed, N failed'.
Exit status: 0 all passed; 1 an offer failed; 64 wrong arguments.  Needs the package websockets, 15
or later.
"""
import argparse
import asyncio
import itertools
import random
import ssl
import sys

from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

SOON = 30  # seconds for all that happens on one connection


def messages():
    """What is sent: names, and payloads as they go out; a list is sent as fragments."""
    source = random.Random(7692)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyzäß€😀", k=7)) for _ in range(400)]
    # Repeated at distances on both sides of every window: who looks back further than was agreed
    # on is found out by the other end's inflater.
    far = [" ".join(source.choices(words, k=count)) for count in (30, 60, 120, 250, 500, 1000, 2000)]
    json = '{"type":"message","room":"lobby","from":"alice","text":"%s","sequence":%d}'
    return [
        ("a short text", "Hello"),
        ("an empty text", ""),
        ("an empty binary", b""),
        ("a kilobyte of JSON", "[%s]" % ",".join(json % (words[i], i) for i in range(12))),
        ("random bytes", source.randbytes(1000)),
        ("zeros", bytes(70_000)),
        ("a large text", "".join(block + block for block in far)),
        ("large random bytes", source.randbytes(80_000)),
        ("a text in fragments", [far[2], "", far[3], far[2]]),
        ("a binary in fragments", [source.randbytes(300), bytes(5000), b""]),
    ]


class Counting(ClientConnection):
    """A connection that knows how many bytes came."""

    received = 0

    def data_received(self, data):
        self.received += len(data)
        super().data_received(data)


def parameters_of(response):
    """The answer: None without the extension, else {parameter: value or True}."""
    lines = response.headers.get_all("Sec-WebSocket-Extensions")
    if not lines:
        return None
    answers = ", ".join(lines).split(",")
    assert len(answers) == 1, f"one extension was offered, the answer is {lines}"
    name, *parameters = [part.strip() for part in answers[0].split(";")]
    assert name == "permessage-deflate", f"not offered: {name}"
    answer = {}
    for parameter in parameters:
        key, equals, value = parameter.partition("=")
        assert key not in answer, f"{key} twice"
        answer[key] = int(value.strip('"')) if equals else True
    return answer


def check_answer(offer, answer):
    """RFC 7692 section 7.1, from the client's side."""
    known = ("server_no_context_takeover", "client_no_context_takeover",
             "server_max_window_bits", "client_max_window_bits")
    for key, value in answer.items():
        assert key in known, f"unknown parameter {key}"
        if key.endswith("takeover"):
            assert value is True, f"{key} has the value {value}"
        else:
            assert value is not True and 8 <= value <= 15, f"{key}={value}"
    if offer["server_no_context_takeover"]:
        assert "server_no_context_takeover" in answer, "server_no_context_takeover was ignored"
    if offer["server_max_window_bits"]:
        given = answer.get("server_max_window_bits")
        assert given and given <= offer["server_max_window_bits"], f"server_max_window_bits={given}"
    given, asked = answer.get("client_max_window_bits"), offer["client_max_window_bits"]
    if given is not None:
        assert asked is not None, "client_max_window_bits was not offered"
        assert asked is True or given <= asked, f"client_max_window_bits={given}"


async def exchange(socket, compressed, exchanged):
    for _ in range(2):
        for name, payload in exchanged:
            before = socket.received
            await socket.send(payload)
            back = await socket.recv()
            whole = payload if not isinstance(payload, list) else payload[0][:0].join(payload)
            assert type(back) is type(whole) and back == whole, f"{name} came back changed"
            if name == "a large text":
                took, size = socket.received - before, len(whole.encode())
                if compressed:
                    assert took < size, f"{name} of {size} bytes came back in {took}: not compressed"
                else:
                    assert took >= size, f"{name} of {size} bytes came back in {took}"


async def run(offer, arguments, exchanged):
    """One connection.  True where the offer was agreed to."""
    context = None
    if arguments.url.startswith("wss:"):
        context = ssl.create_default_context()
        if arguments.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(SOON):
        socket = await connect(arguments.url, extensions=[ClientPerMessageDeflateFactory(**offer)], compression=None,
                               max_size=1 << 20, create_connection=Counting, ssl=context, proxy=None,
                               open_timeout=SOON, close_timeout=SOON)
        async with socket:
            answer = parameters_of(socket.response)
            if arguments.expect == "none":
                assert answer is None, f"agreed to {answer}"
            elif answer is None:
                assert offer["server_max_window_bits"] == 8, "declined"
            if answer is not None:
                check_answer(offer, answer)
            await exchange(socket, answer is not None, exchanged)
            await socket.close(1000, "done")
        assert socket.close_code == 1000, f"closed with {socket.close_code}"
        return answer is not None


async def main():
    parser = argparse.ArgumentParser(description="every offer of compression, against an echo server")
    parser.add_argument("--url", required=True)
    parser.add_argument("--expect", choices=["deflate", "none"], default="deflate")
    parser.add_argument("--insecure", action="store_true")
    try:
        arguments = parser.parse_args()
    except SystemExit as end:
        sys.exit(64 if end.code else 0)
    exchanged, passed, failed = messages(), 0, 0
    both, client_bits = (False, True), [None, True, *range(9, 16)]
    groups = [(*group, client_bits) for group in itertools.product(both, both, [None, *range(9, 16)])]
    groups.append((False, False, 8, [None, True]))
    for server_takeover, client_takeover, server_bits, choices in groups:
        named = [name for name, there in (("server_no_context_takeover", server_takeover),
                                          ("client_no_context_takeover", client_takeover)) if there]
        named += [f"server_max_window_bits={server_bits}"] if server_bits else []
        agreed, wrong = 0, []
        for bits in choices:
            offer = {"server_no_context_takeover": server_takeover, "client_no_context_takeover": client_takeover,
                     "server_max_window_bits": server_bits, "client_max_window_bits": bits}
            try:
                agreed += await run(offer, arguments, exchanged)
            except Exception as error:
                wrong.append(f"client_max_window_bits {bits}: {type(error).__name__}: {error}")
        passed, failed = passed + len(choices) - len(wrong), failed + len(wrong)
        print(f"{'FAIL' if wrong else 'ok':4} {'; '.join(named) or 'no other parameter'}: {len(choices)} kinds of "
              f"client_max_window_bits, {agreed} agreed, {len(choices) - agreed - len(wrong)} declined", flush=True)
        for line in wrong:
            print(f"     {line}", flush=True)
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
