#!/usr/bin/env python3
"""Tests the example `client` as whoever types at it sees it: its lines, its last words, its status.

    client_program.py PROGRAM [OPTION...]

The options, such as --blocking, are given to the program each time.  The servers are
websockets_server.py, so this Python needs the package websockets, and some that say what a test has
them say.  Prints a line for each test, and `N passed, N failed`; status 1 if one failed.
"""
import base64
import contextlib
import hashlib
import json
import os
import pty
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PROGRAM, OPTIONS = sys.argv[1], sys.argv[2:]
BLOCKING = "--blocking" in OPTIONS
HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT = 30
tests = []


def test(function):
    tests.append(function)
    return function


# --- what the tests are made of ---

class Client:
    """The program, with pipes for its input and output."""

    def __init__(self, url, *options):
        self.process = subprocess.Popen([PROGRAM, url, *options, *OPTIONS], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def type(self, text):
        self.process.stdin.write(text if isinstance(text, bytes) else text.encode())
        self.process.stdin.flush()

    def line(self):
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
        assert ready, "no line in time"
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self.process.stdout.fileno(), 1)
            assert byte, f"the output ended after {line}"
            line += byte
        return line.decode()[:-1]

    def say(self, text, heard):
        """Types this, and returns what comes back, as soon as that is as long as what is to be heard."""
        writer = threading.Thread(target=self.type, args=(text,), daemon=True)
        writer.start()
        out = b""
        while len(out) < len(heard.encode()):
            ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
            assert ready, f"nothing more behind {out[-80:]}"
            more = os.read(self.process.stdout.fileno(), 1 << 16)
            if not more:
                break
            out += more
        writer.join(LIMIT)
        return out.decode()

    def end(self, text=None):
        """Ends the input, if a text is given with that; returns output, last words and status."""
        try:
            if text is None:
                self.process.wait(LIMIT)
                out, err = self.process.stdout.read(), self.process.stderr.read()
            else:
                out, err = self.process.communicate(text if isinstance(text, bytes) else text.encode(), LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("it did not end in time") from None
        return out.decode(), err.decode(), self.process.returncode


def run(url, *options, typed=""):
    return Client(url, *options).end(typed)


def talk(url, *options, typed, heard):
    """The same, but the input ends when all is heard: after its end half a second of silence is enough, and
    the machine may stall for that long."""
    client = Client(url, *options)
    out = client.say(typed, heard)
    rest, *end = client.end("")
    return out + rest, *end


def expect(found, *expected):
    assert found == expected, f"expected {expected!r:.400}, found {found!r:.400}"


def expect_failure(found, *words):
    out, err, status = found
    assert (out, status) == ("", 1), found
    for word in words:
        assert word in err, found


@contextlib.contextmanager
def foreign(*options):
    server = subprocess.Popen([sys.executable, os.path.join(HERE, "websockets_server.py"), "--until-eof", *options],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield server.stdout.readline().decode().strip()
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def saying(*frames, then=lambda stream: stream.recv(1000)):
    """A server that says these bytes behind its 101, at once."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            stream, _ = listener.accept()
            with stream:
                stream.settimeout(LIMIT)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += stream.recv(1000)
                key = next(line.split(b":")[1].strip() for line in head.split(b"\r\n")
                           if line.lower().startswith(b"sec-websocket-key"))
                accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                stream.sendall(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                               b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + b"".join(frames))
                then(stream)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.close()


def frame(first, payload):
    assert len(payload) < 126
    return bytes([first, len(payload)]) + payload


def frames_of(stream):
    """The first byte of each short frame that the client sends."""
    data = b""
    while True:
        while len(data) < 2 or len(data) < 6 + (data[1] & 127):
            more = stream.recv(1000)
            if not more:
                return
            data += more
        yield data[0]
        data = data[6 + (data[1] & 127):]


def once_in(attempts, attempt):
    """For what has to be quick: the machine may stall in some of the attempts, not in all of them."""
    assert any(attempt() for _ in range(attempts)), f"not once in {attempts}"


# --- the tests ---

@test
def lines_go_and_come_back_and_the_end_of_the_input_closes(server):
    heard = "one\ntwo\n\nκόσμε\ttab\n"
    expect(talk(f"{server}/echo", typed="one\ntwo\r\n\nκόσμε\ttab\n", heard=heard), heard, "closed 1000 (clean)\n", 0)
    once_in(5, lambda: run(f"{server}/echo", typed="no line feed") == ("no line feed\n", "closed 1000 (clean)\n", 0))
    expect(run(f"{server}/echo"), "", "closed 1000 (clean)\n", 0)


@test
def the_end_of_a_pipe_waits_for_answers_that_are_due_and_for_no_others(server):
    def at_once():
        start = time.monotonic()
        expect(run(f"{server}/echo"), "", "closed 1000 (clean)\n", 0)
        return time.monotonic() - start < 0.4

    # Like many servers it answers a Close at once, and says nothing after it.
    def late(stream):
        frames = frames_of(stream)
        next(frames)
        if not select.select([stream], [], [], 0.2)[0]:
            stream.sendall(frame(0x81, b"late"))
        next(frames)
        stream.sendall(frame(0x88, b"\x03\xe8"))

    def patiently():
        with saying(then=late) as url:
            out, *end = run(url, typed="soon\n")
        expect(tuple(end), "closed 1000 (clean)\n", 0)
        return out == "late\n"

    once_in(10, at_once)
    once_in(5, patiently)


@test
def the_end_of_a_pipe_does_not_wait_for_ever(_server):
    def drip(stream):
        stream.settimeout(0.1)
        while True:
            with contextlib.suppress(TimeoutError):
                if stream.recv(1000)[:1] == b"\x88":
                    break
            stream.sendall(frame(0x81, b"drip"))
        stream.sendall(frame(0x88, b"\x03\xe8"))

    def for_ten_seconds():
        start = time.monotonic()
        with saying(then=drip) as url:
            out, err, status = run(url, typed="enough\n")
        assert (set(out.split("\n")), err, status) == ({"drip", ""}, "closed 1000 (clean)\n", 0), (out, err, status)
        return 9 < time.monotonic() - start < 15

    once_in(3, for_ten_seconds)


@test
def each_line_is_handled_at_once(server):
    client = Client(f"{server}/echo")
    client.type("warm\n")
    assert client.line() == "warm"
    times = []
    for number in range(50):
        start = time.monotonic()
        client.type(f"{number}\n")
        assert client.line() == str(number)
        times.append(time.monotonic() - start)
    # What waits for a timer waits each time; what the machine holds up, now and then.
    assert statistics.median(times) < 0.2, times
    expect(client.end(""), "", "closed 1000 (clean)\n", 0)


@test
def ten_thousand_lines_come_back_in_order(server):
    typed = "".join(f"{number} {'x' * (number % 1500)}\n" for number in range(10_000))
    expect(talk(f"{server}/echo", typed=typed, heard=typed), typed, "closed 1000 (clean)\n", 0)


@test
def a_line_of_a_mebibyte_comes_back(server):
    typed = "κ" * (512 << 10) + "\n"
    expect(talk(f"{server}/echo", typed=typed, heard=typed), typed, "closed 1000 (clean)\n", 0)


@test
def what_the_server_pushes_is_printed_to_the_end(server):
    numbers = "".join(f"{number}\n" for number in range(10_000))
    expect(Client(f"{server}/push/10000").end(), numbers, "closed 1000 (clean)\n", 0)


@test
def lines_are_sent_while_the_server_never_pauses(_server):
    heard = threading.Event()

    def storm(stream):
        def listen():
            while stream.recv(1000)[:1] != b"\x81":
                pass
            heard.set()
        threading.Thread(target=listen, daemon=True).start()
        while not heard.is_set():
            stream.sendall(frame(0x81, b"storm") * 1000)
        stream.sendall(frame(0x88, b"\x03\xe8"))
        stream.recv(1000)

    with saying(then=storm) as url:
        client = Client(url)
        reader = threading.Thread(target=lambda: client.process.stdout.read(), daemon=True)
        time.sleep(0.3)
        reader.start()
        client.type("stop\n")
        assert client.process.wait(LIMIT) == 0
        assert heard.is_set()


@test
def the_servers_close_is_told_with_code_and_reason(server):
    expect(Client(f"{server}/close/4001?reason=good%20bye").end(), "", "closed 4001 good bye (clean)\n", 0)
    expect(Client(f"{server}/close/1011").end(), "", "closed 1011 (clean)\n", 0)
    with saying(frame(0x88, b"")) as url:
        expect(Client(url).end(), "", "closed 1005 (clean)\n", 0)


@test
def a_refusal_is_told_with_its_status_and_words(server):
    expect_failure(run(f"{server}/refuse/403"), "refused 403: ", "refused with 403")
    expect_failure(run(f"{server}/redirect/302?to=/echo"), "refused 302: ", "/echo")
    expect_failure(run(f"{server}/nowhere"), "refused 404: ", "no such path")


@test
def no_server_and_no_answer_are_told(server):
    # Nobody listens there, and nobody else can: the port is taken.
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        expect_failure(run(f"ws://127.0.0.1:{unused.getsockname()[1]}/"), "closed 1006 (unclean): ", "refused")
    start = time.monotonic()
    expect_failure(run(f"{server}/hang", "--timeout", "0.3"), "closed 1006 (unclean): ")
    assert time.monotonic() - start < 8  # without it, ten


@test
def an_end_without_a_close_is_unclean(server):
    aborted = Client(f"{server}/abort")
    aborted.type("x\n")
    expect_failure(aborted.end(), "closed 1006 (unclean): ")
    with saying(frame(0x81, b"half")[:-1], then=lambda stream: None) as url:
        expect_failure(Client(url).end(), "closed 1006 (unclean): ")
    with saying(frame(0x83, b""), then=lambda stream: stream.recv(1000)) as url:
        expect_failure(Client(url).end(), "closed 1006 (unclean): ")


@test
def control_c_closes_with_1000(server):
    client = Client(f"{server}/echo")
    client.type("there\n")
    assert client.line() == "there"
    client.process.send_signal(signal.SIGINT)
    expect(client.end(), "", "closed 1000 (clean)\n", 0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        waiting = Client(f"ws://127.0.0.1:{silent.getsockname()[1]}/")
        silent.settimeout(LIMIT)
        stream, _ = silent.accept()
        with stream:
            stream.settimeout(LIMIT)
            assert stream.recv(1000).startswith(b"GET /")  # so it waits for an answer
            waiting.process.send_signal(signal.SIGINT)
            expect(waiting.end(), "", "closed 1006 (unclean): interrupted before there was a connection\n", 1)


@test
def binary_and_control_characters_are_printed_readably(_server):
    frames = (frame(0x82, b"\x00\x01\xfe\xff"), frame(0x82, b""), frame(0x81, b"a\nb\x1b[31m\tc"),
              frame(0x81, "a\u202eb \u2066\u200b👩\u200d🚀".encode()), frame(0x88, b"\x0f\xa1bye\r\n"))
    with saying(*frames) as url:
        expect(Client(url).end(), "<4 bytes> 0001feff\n<0 bytes> \na\\nb\\u{1b}[31m\tc\n"
               "a\\u{202e}b \\u{2066}\\u{200b}👩\u200d🚀\n",
               "closed 4001 bye\\r\\n (clean)\n", 0)


@test
def a_line_that_is_not_utf8_is_not_sent(server):
    expect(talk(f"{server}/echo", typed=b"good\n\xff\xfe\nbetter\n", heard="good\nbetter\n"),
           "good\nbetter\n", "a line is not UTF-8, and not sent\nclosed 1000 (clean)\n", 0)


@test
def the_request_is_as_it_is_asked_for(server):
    out, err, status = run(f"{server}/request?a=b", "--header", "X-One: 1", "--header", "Cookie: k=v",
                           "--subprotocol", "a", "--subprotocol=b", "--origin", "https://page.example")
    assert (err, status) == ("closed 1000 (clean)\n", 0), (err, status)
    request = json.loads(out)
    headers = dict(request["headers"])
    assert request["path"] == "/request?a=b"
    found = [headers.get(name) for name in ("x-one", "cookie", "sec-websocket-protocol", "origin")]
    assert found == ["1", "k=v", "a, b", "https://page.example"] or found[2] == "a,b", found
    assert "origin" not in dict(json.loads(run(f"{server}/request")[0])["headers"])


@test
def a_name_and_a_password_in_the_address_are_sent(server):
    url = server.replace("://", "://user:secret@") + "/basic"
    expect(run(url), "welcome user\n", "closed 1000 (clean)\n", 0)
    expect_failure(run(url.replace("secret", "wrong")), "refused 401: ")


@test
def a_unix_socket_is_an_address(_server):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.sock")
        with foreign("--unix", path):
            expect(talk(f"ws+unix://{path}:/echo", typed="there\n", heard="there\n"), "there\n", "closed 1000 (clean)\n", 0)
        expect_failure(run(f"ws+unix://{path}.none"), "closed 1006 (unclean): ")


@test
def output_that_is_lost_is_a_failure(server):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([PROGRAM, f"{server}/push/10", *OPTIONS], stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=LIMIT, input="")
    assert done.returncode == 1 and "standard output failed" in done.stderr, done


@test
def tls_is_verified_unless_told_otherwise(_server):
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "certificate.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-days", "2",
                        "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        with foreign("--tls", certificate, key) as server:
            expect_failure(run(f"{server}/echo"), "closed 1006 (unclean): ", "ertificate")
            expect(talk(f"{server}/echo", "--insecure", typed="hidden\n", heard="hidden\n"), "hidden\n",
                   "closed 1000 (clean)\n", 0)


@test
def mistakes_on_the_command_line_are_named(server):
    def mistake(word, *arguments):
        done = subprocess.run([PROGRAM, *arguments, *OPTIONS], capture_output=True, text=True, timeout=LIMIT, input="")
        assert (done.stdout, done.returncode) == ("", 1) and word in done.stderr, done
        assert done.stderr.startswith("Error: "), done

    mistake("usage: client URL")
    mistake("--unknown", f"{server}/echo", "--unknown")
    mistake("name: value", f"{server}/echo", "--header", "nothing")
    mistake("--timeout", f"{server}/echo", "--timeout", "soon")
    mistake("--timeout", f"{server}/echo", "--timeout", "-1")
    mistake("scheme", "no-address")
    mistake("`ftp`", "ftp://a.example/")
    mistake("no uri", "ws://a b/")
    mistake("header host", f"{server}/echo", "--header", "Host: a.example")
    mistake("`a b`", f"{server}/echo", "--subprotocol", "a b")
    mistake("origin", f"{server}/echo", "--origin", "a\nb")
    if BLOCKING:
        mistake("the blocking client has no --proxy", f"{server}/echo", "--proxy", "http://127.0.0.1:1")
        mistake("the blocking client has no --http2", f"{server}/echo", "--http2")
    else:
        mistake("--proxy", f"{server}/echo", "--proxy", "ftp://a.example")


@test
def only_a_terminal_gets_a_prompt(server):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(PROGRAM, [PROGRAM, f"{server}/echo", *OPTIONS])
    seen = b""

    def until(text):
        nonlocal seen
        end = time.monotonic() + LIMIT
        while text not in seen:
            ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text} is not in {seen}"
            try:
                seen += os.read(terminal, 1000)
            except OSError:
                assert text in seen, f"{text} is not in {seen}"

    until(b"> ")
    os.write(terminal, b"hello\n")
    until(b"\rhello\r\n> ")
    os.write(terminal, b"\x04")  # control-D
    until(b"closed 1000 (clean)")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, status


def main():
    failed = 0
    with foreign() as server:
        for function in tests:
            name = function.__name__.replace("_", " ")
            start = time.monotonic()
            try:
                function(server)
                print(f"ok     {name} ({time.monotonic() - start:.2f} s)", flush=True)
            except Exception as error:  # pylint: disable=broad-except
                failed += 1
                print(f"failed {name}: {type(error).__name__}: {error}", flush=True)
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
