#!/usr/bin/env python3
"""An echo server on the Python package websockets, for clients under test.

    websockets_server.py [--listen PORT | --unix PATH] [--tls CERTIFICATE KEY] [--until-eof]

Listens on 127.0.0.1, on a free port unless one is given, and prints one line once it does:
ws://127.0.0.1:PORT, wss://127.0.0.1:PORT or ws+unix:PATH.  Ends on SIGTERM, and with --until-eof at
the end of its standard input.  ws_server.cjs has the same paths.

    /echo                sends every message back
    /fragments           sends every message back in three fragments
    /subprotocol         knows chat.v2 and chat, and prefers chat.v2; its first message is the one
                         it chose, or empty
    /request             its first message is the request as JSON: {"path": .., "headers": [[name
                         in lower case, value], ..]}
    /cookies             its 101 sets two cookies, session=opened and seen=yes; its first message is
                         the request's Cookie header, or empty
    /basic               wants user and secret (Basic); its first message is `welcome user`
    /bearer              wants the token secret; its first message is `welcome bearer`
                         (both else 401 with WWW-Authenticate and the body `who are you?`)
    /refuse/STATUS       that status, X-Refusal: STATUS, and the body `refused with STATUS`
    /refuse/STATUS?length=N   ... with N times the letter x as its body
    /redirect/STATUS?to=URL   that status and Location: URL; Retry-After: 1
    /hops/N              302 to /hops/N-1, and at /hops/0 the echo
    /loop                302 to /loop
    /close/CODE?reason=R closes at once with this
    /push/N              sends the numbers from 0 to N-1 as text, then closes with 1000
    /ping                pings, and once that is answered sends `answered`
    /abort               ends the connection without a Close, at the first message
    /hang                never answers the request

Whatever is none of these is a 404 with a body.  After its first message a path is an echo.
Query parameters on every path, for compression: deflate=none declines it;
server_no_context_takeover, client_no_context_takeover, server_max_window_bits=N and
client_max_window_bits=N are what this server answers or insists on, as far as the offer allows.
"""
import argparse
import asyncio
import base64
import json
import re
import signal
import ssl
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve, unix_serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

SUBPROTOCOLS = ["chat.v2", "chat"]
LARGEST = 32 << 20


def address_of(request):
    parts = urlsplit(request.path)
    query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    return parts.path, query


def bits(query, name):
    return int(query[name]) if name in query else None


def answer(connection, status, body, **headers):
    response = connection.respond(status, body)
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = value
    return response


async def process_request(connection, request):
    path, query = address_of(request)
    protocol = connection.protocol
    protocol.available_extensions = [] if query.get("deflate") == "none" else [ServerPerMessageDeflateFactory(
        server_no_context_takeover="server_no_context_takeover" in query,
        client_no_context_takeover="client_no_context_takeover" in query,
        server_max_window_bits=bits(query, "server_max_window_bits"),
        client_max_window_bits=bits(query, "client_max_window_bits"),
    )]
    connection.known_subprotocols = SUBPROTOCOLS if path == "/subprotocol" else []
    if path == "/hang":
        await asyncio.sleep(3600)
    if path == "/loop":
        return answer(connection, 302, "here again\n", Location="/loop")
    if path in ("/basic", "/bearer"):
        wanted = "Bearer secret" if path == "/bearer" else "Basic " + base64.b64encode(b"user:secret").decode()
        if request.headers.get("Authorization") != wanted:
            scheme = 'Basic realm="test"' if path == "/basic" else "Bearer"
            return answer(connection, 401, "who are you?", WWW_Authenticate=scheme)
    if match := re.fullmatch(r"/refuse/(\d+)", path):
        body = "x" * int(query["length"]) if "length" in query else f"refused with {match[1]}"
        return answer(connection, int(match[1]), body, X_Refusal=match[1])
    if match := re.fullmatch(r"/redirect/(\d+)", path):
        return answer(connection, int(match[1]), "elsewhere\n", Location=query["to"], Retry_After="1")
    if match := re.fullmatch(r"/hops/([1-9]\d*)", path):
        return answer(connection, 302, "further\n", Location=f"/hops/{int(match[1]) - 1}")
    if not re.fullmatch(r"/(echo|fragments|subprotocol|request|cookies|basic|bearer|hops/0|ping|abort|close/\d+|push/\d+)",
                        path):
        return answer(connection, 404, "no such path\n")
    return None


def select_subprotocol(connection, offered):
    # The package's own choice refuses who offers none that it knows.
    return next((name for name in connection.known_subprotocols if name in offered), None)


def process_response(connection, request, response):
    if address_of(request)[0] == "/cookies" and response.status_code == 101:
        response.headers["Set-Cookie"] = "session=opened; Path=/; HttpOnly"
        response.headers["Set-Cookie"] = "seen=yes; Path=/"


async def handle(connection):
    request = connection.request
    path, query = address_of(request)
    try:
        if path == "/subprotocol":
            await connection.send(connection.subprotocol or "")
        elif path == "/request":
            headers = [[name.lower(), value] for name, value in request.headers.raw_items()]
            await connection.send(json.dumps({"path": request.path, "headers": headers}))
        elif path == "/cookies":
            await connection.send(request.headers.get("Cookie", ""))
        elif path in ("/basic", "/bearer"):
            await connection.send("welcome user" if path == "/basic" else "welcome bearer")
        elif path == "/ping":
            await (await connection.ping())
            await connection.send("answered")
        elif path.startswith("/close/"):
            return await connection.close(int(path[7:]), query.get("reason", ""))
        elif path.startswith("/push/"):
            for number in range(int(path[6:])):
                await connection.send(str(number))
            return
        async for message in connection:
            if path == "/abort":
                connection.transport.abort()
                return
            if path == "/fragments":
                third = (len(message) + 2) // 3
                message = [message[:third], message[third:2 * third], message[2 * third:]]
            await connection.send(message)
    except ConnectionClosed:
        pass


async def main():
    parser = argparse.ArgumentParser(description="an echo server for clients under test")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--listen", type=int, default=0, metavar="PORT")
    where.add_argument("--unix", metavar="PATH")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    parser.add_argument("--until-eof", action="store_true")
    arguments = parser.parse_args()
    context = None
    if arguments.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*arguments.tls)
    options = {"process_request": process_request, "process_response": process_response,
               "select_subprotocol": select_subprotocol, "compression": None, "max_size": LARGEST,
               "ping_interval": None, "open_timeout": None, "close_timeout": 30, "ssl": context}
    if arguments.unix:
        server, address = await unix_serve(handle, arguments.unix, **options), f"ws+unix:{arguments.unix}"
    else:
        server = await serve(handle, "127.0.0.1", arguments.listen, **options)
        port = server.sockets[0].getsockname()[1]
        address = f"{'wss' if context else 'ws'}://127.0.0.1:{port}"
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    if arguments.until_eof:
        loop.add_reader(sys.stdin, lambda: sys.stdin.buffer.read1(4096) or ended.set())
    print(address, flush=True)
    await ended.wait()
    server.close()
    try:
        await asyncio.wait_for(server.wait_closed(), 2)
    except asyncio.TimeoutError:
        pass  # such as a request that is never answered


if __name__ == "__main__":
    asyncio.run(main())
