// WebSockets over HTTP/2 (RFC 8441), by Node's own module `http2`, against the showcase.
//
//     node http2_client.cjs http://127.0.0.1:8000     prior knowledge
//     node http2_client.cjs https://127.0.0.1:8000    TLS, h2 by ALPN; the certificate is not verified
//
// The frames of RFC 6455 are made here, apart from the engine under test.  `/version` has to say
// that the server saw HTTP/2, on the very connection that the sockets are on.
//
// Prints one line, `ok ...` or `FAILED ...`.  Exit status: 0 all held; 1 something did not; 64 wrong
// arguments.
'use strict';

const http2 = require('node:http2');
const { randomBytes } = require('node:crypto');
const { once } = require('node:events');

const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

function check(holds, what) {
  if (!holds) throw new Error(what);
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took half a minute`)), 30_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// A masked frame, whole (RFC 6455 section 5.2).
function frame(opcode, payload) {
  let head;
  if (payload.length < 126) {
    head = Buffer.from([0x80 | opcode, 0x80 | payload.length]);
  } else if (payload.length < 65536) {
    head = Buffer.from([0x80 | opcode, 0x80 | 126, 0, 0]);
    head.writeUInt16BE(payload.length, 2);
  } else {
    head = Buffer.alloc(10);
    head.set([0x80 | opcode, 0x80 | 127]);
    head.writeBigUInt64BE(BigInt(payload.length), 2);
  }
  const mask = randomBytes(4);
  const body = Buffer.from(payload);
  for (let at = 0; at < body.length; at += 1) body[at] ^= mask[at & 3];
  return Buffer.concat([head, mask, body]);
}

function code(number) {
  const payload = Buffer.alloc(2);
  payload.writeUInt16BE(number);
  return payload;
}

// One stream, a WebSocket.
class Socket {
  constructor(stream) {
    this.stream = stream;
    this.data = Buffer.alloc(0);
    this.hasEnded = false;
    this.failure = null;
    this.wake = () => {};
    stream.on('data', (data) => {
      this.data = Buffer.concat([this.data, data]);
      this.wake();
    });
    stream.on('end', () => this.finish());
    stream.on('close', () => this.finish());
    stream.on('error', (error) => {
      this.failure = error;
      this.finish();
    });
  }

  finish() {
    this.hasEnded = true;
    this.wake();
  }

  news() {
    return new Promise((resolve) => {
      this.wake = resolve;
    });
  }

  send(opcode, payload) {
    this.stream.write(frame(opcode, Buffer.from(payload)));
  }

  async need(count) {
    while (this.data.length < count) {
      check(!this.hasEnded, `${count} bytes, not an end (${this.failure}) behind ${this.data.toString('hex')}`);
      await this.news();
    }
  }

  async receive() {
    await this.need(2);
    check((this.data[0] & 0x70) === 0 && (this.data[1] & 0x80) === 0, 'no reserved bit, no mask');
    let size = this.data[1];
    let head = 2;
    if (size === 126) {
      await this.need(4);
      size = this.data.readUInt16BE(2);
      head = 4;
    } else if (size === 127) {
      await this.need(10);
      size = Number(this.data.readBigUInt64BE(2));
      head = 10;
    }
    await this.need(head + size);
    const got = { opcode: this.data[0] & 15, payload: this.data.subarray(head, head + size) };
    this.data = this.data.subarray(head + size);
    return got;
  }

  async expect(opcode, payload) {
    const got = await within(this.receive(), 'a frame');
    check(
      got.opcode === opcode && got.payload.equals(Buffer.from(payload)),
      `${opcode} ${payload.toString().slice(0, 40)}, not ${got.opcode} ${got.payload.toString().slice(0, 40)}`,
    );
  }

  async expectClose(number) {
    const got = await within(this.receive(), 'a Close');
    check(got.opcode === CLOSE && got.payload.subarray(0, 2).equals(code(number)), `a Close with ${number}, not ${got.opcode}`);
  }

  async expectEnd() {
    const end = async () => {
      while (!this.hasEnded) await this.news();
    };
    await within(end(), 'the end');
    check(this.failure === null, `a clean end, not ${this.failure}`);
    check(this.data.length === 0, `nothing behind the Close: ${this.data.toString('hex')}`);
    this.stream.end();
  }

  async close(number) {
    this.send(CLOSE, code(number));
    await this.expect(CLOSE, code(number));
    await this.expectEnd();
  }
}

async function ask(session, headers, ends) {
  const stream = session.request(headers, { endStream: ends });
  const [answer] = await within(once(stream, 'response'), 'an answer');
  return { stream, answer };
}

async function get(session, path) {
  const { stream, answer } = await ask(session, { ':path': path }, true);
  let body = '';
  stream.setEncoding('utf8');
  for await (const piece of stream) body += piece;
  return `${answer[':status']} ${body}`;
}

function connect(session, path, headers) {
  return ask(
    session,
    { ':method': 'CONNECT', ':protocol': 'websocket', ':path': path, 'sec-websocket-version': '13', ...headers },
    false,
  );
}

async function open(session, path) {
  const { stream, answer } = await connect(session, path, {});
  check(answer[':status'] === 200, `a 200, not ${answer[':status']}`);
  for (const name of ['content-length', 'sec-websocket-accept']) {
    check(!(name in answer), `no ${name}`);
  }
  return new Socket(stream);
}

const parts = {
  async echoes(session) {
    const socket = await open(session, '/echo');
    for (const [opcode, payload] of [
      [TEXT, Buffer.from('Hello')],
      [TEXT, Buffer.alloc(0)],
      [TEXT, Buffer.from('\u00b5@\u00df\u{1f600}')],
      [BINARY, randomBytes(65536)],
      [BINARY, randomBytes(1 << 20)],
    ]) {
      socket.send(opcode, payload);
      await socket.expect(opcode, payload);
    }
    socket.send(PING, 'are you there');
    await socket.expect(PONG, 'are you there');
    await socket.close(1000);
  },

  async codes(session) {
    for (const number of [1000, 1001, 3000, 4999]) {
      await (await open(session, '/echo')).close(number);
    }
    let socket = await open(session, '/echo');
    socket.send(TEXT, 'quit');
    await socket.expectClose(1000);
    socket.send(CLOSE, code(1000));
    await socket.expectEnd();
    for (const [wrong, number] of [
      [Buffer.from('\x81\x05Hello', 'latin1'), 1002],
      [frame(TEXT, Buffer.from([0xff])), 1007],
      [frame(BINARY, Buffer.alloc((1 << 20) + 1)), 1009],
    ]) {
      socket = await open(session, '/echo');
      socket.stream.write(wrong);
      await socket.expectClose(number);
      socket.stream.close(http2.constants.NGHTTP2_CANCEL);
    }
  },

  async several(session) {
    const sockets = [];
    for (let count = 0; count < 20; count += 1) sockets.push(await open(session, '/echo'));
    for (let turn = 0; turn < 10; turn += 1) {
      sockets.forEach((socket, number) => socket.send(TEXT, `${number} ${turn}`));
    }
    for (let turn = 0; turn < 10; turn += 1) {
      for (const [number, socket] of sockets.entries()) await socket.expect(TEXT, `${number} ${turn}`);
    }
    for (const socket of sockets) await socket.close(1000);
  },

  async smallMessages(session) {
    const neighbour = await open(session, '/echo');
    const socket = await open(session, '/echo');
    for (let turn = 0; turn < 10000; turn += 1) socket.send(TEXT, `${turn}`);
    for (let turn = 0; turn < 10000; turn += 1) await socket.expect(TEXT, `${turn}`);
    neighbour.send(TEXT, 'undisturbed');
    await neighbour.expect(TEXT, 'undisturbed');
    await neighbour.close(1000);
    await socket.close(1000);
  },

  async refusals(session) {
    const evil = await connect(session, '/echo', { origin: 'http://evil.example' });
    check(evil.answer[':status'] === 403, `a 403, not ${evil.answer[':status']}`);
    evil.stream.close();
    const nowhere = await connect(session, '/nowhere', {});
    check(nowhere.answer[':status'] === 404, `a 404, not ${nowhere.answer[':status']}`);
    nowhere.stream.close();
  },
};

async function main() {
  const url = process.argv[2];
  if (process.argv.length !== 3 || !/^https?:\/\/[^/]+:\d+$/.test(url)) {
    console.error('usage: node http2_client.cjs http[s]://ADDRESS:PORT');
    return 64;
  }
  let name = 'connecting';
  const session = http2.connect(url, { rejectUnauthorized: false });
  try {
    await within(once(session, 'remoteSettings'), 'the SETTINGS');
    check(session.remoteSettings.enableConnectProtocol, 'extended CONNECT is allowed');
    // Over TLS 'h2' is what ALPN chose.
    const protocol = url.startsWith('https:') ? 'h2' : 'h2c';
    check(session.alpnProtocol === protocol, `${protocol}, not ${session.alpnProtocol}`);
    session.on('goaway', (number) => {
      session.destroy(new Error(`GOAWAY ${number}`));
    });
    for (name of Object.keys(parts)) {
      await parts[name](session);
      const version = await get(session, '/version');
      check(version === '200 HTTP/2.0', `the server saw HTTP/2, not ${version}`);
    }
  } catch (error) {
    console.log(`FAILED ${name}: ${error.message}`);
    session.destroy();
    return 1;
  }
  session.destroy();
  console.log(`ok ${Object.keys(parts).length} parts on one connection of HTTP/2, ${url.split(':')[0]}, node ${process.version}`);
  return 0;
}

main().then((status) => {
  process.exitCode = status;
});
