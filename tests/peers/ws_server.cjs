// An echo server on the npm package ws, for clients under test.
//
//     node ws_server.cjs [--listen PORT | --unix PATH] [--cert PEM --key PEM] [--until-eof]
//
// Listens on 127.0.0.1, on a free port unless one is given, and prints one line once it does:
// ws://127.0.0.1:PORT, wss://127.0.0.1:PORT or ws+unix:PATH.  Ends on SIGTERM, and with --until-eof
// at the end of its standard input.  `ws` must be found by `require`: put its node_modules directory
// into NODE_PATH.
//
// Its paths and query parameters are those of websockets_server.py, which lists them.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const { parseArgs } = require('node:util');

const WebSocket = require('ws');

const SUBPROTOCOLS = ['chat.v2', 'chat'];
const LARGEST = 32 << 20;
const ECHOES = /^\/(echo|fragments|subprotocol|request|cookies|basic|bearer|hops\/0|ping|abort|close\/\d+|push\/\d+)$/;

function respond(socket, status, body, headers = {}) {
  const lines = { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(body), Connection: 'close', ...headers };
  const head = Object.entries(lines).map(([name, value]) => `${name}: ${value}\r\n`).join('');
  socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status] ?? 'Status'}\r\n${head}\r\n${body}`);
}

// The refusal that a path calls for; true if there was one.
function refuse(path, query, request, socket) {
  const found = (pattern) => path.match(pattern)?.[1];
  if (path === '/hang') return true;
  if (path === '/loop') return respond(socket, 302, 'here again\n', { Location: '/loop' }), true;
  if (path === '/basic' || path === '/bearer') {
    const basic = path === '/basic';
    const wanted = basic ? `Basic ${Buffer.from('user:secret').toString('base64')}` : 'Bearer secret';
    if (request.headers.authorization === wanted) return false;
    const scheme = basic ? 'Basic realm="test"' : 'Bearer';
    return respond(socket, 401, 'who are you?', { 'WWW-Authenticate': scheme }), true;
  }
  let number = found(/^\/refuse\/(\d+)$/);
  if (number) {
    const body = query.has('length') ? 'x'.repeat(Number(query.get('length'))) : `refused with ${number}`;
    return respond(socket, Number(number), body, { 'X-Refusal': number }), true;
  }
  number = found(/^\/redirect\/(\d+)$/);
  if (number) {
    return respond(socket, Number(number), 'elsewhere\n', { Location: query.get('to'), 'Retry-After': 1 }), true;
  }
  number = found(/^\/hops\/([1-9]\d*)$/);
  if (number) return respond(socket, 302, 'further\n', { Location: `/hops/${number - 1}` }), true;
  if (!ECHOES.test(path)) return respond(socket, 404, 'no such path\n'), true;
  return false;
}

// What this server answers to offers of compression.
function deflate(query) {
  if (query.get('deflate') === 'none') return false;
  const number = (name) => (query.has(name) ? Number(query.get(name)) : undefined);
  return {
    serverNoContextTakeover: query.has('server_no_context_takeover') || undefined,
    clientNoContextTakeover: query.has('client_no_context_takeover') || undefined,
    serverMaxWindowBits: number('server_max_window_bits'),
    clientMaxWindowBits: number('client_max_window_bits'),
    threshold: 0,
  };
}

function first(path, socket, request) {
  if (path === '/subprotocol') socket.send(socket.protocol);
  if (path === '/cookies') socket.send(request.headers.cookie ?? '');
  if (path === '/basic') socket.send('welcome user');
  if (path === '/bearer') socket.send('welcome bearer');
  if (path === '/request') {
    const headers = [];
    for (let place = 0; place < request.rawHeaders.length; place += 2) {
      headers.push([request.rawHeaders[place].toLowerCase(), request.rawHeaders[place + 1]]);
    }
    socket.send(JSON.stringify({ path: request.url, headers }));
  }
  if (path === '/ping') {
    socket.on('pong', () => socket.send('answered'));
    socket.ping('ping');
  }
  if (path.startsWith('/push/')) {
    for (let number = 0; number < Number(path.slice(6)); number += 1) socket.send(String(number));
    socket.close(1000);
  }
}

function handle(path, query, socket, request) {
  socket.on('error', () => {}); // of the peer's making; the connection ends by itself
  if (path.startsWith('/close/')) return socket.close(Number(path.slice(7)), query.get('reason') ?? '');
  first(path, socket, request);
  socket.on('message', (data, binary) => {
    if (path === '/abort') return socket.terminate();
    if (path !== '/fragments') return socket.send(data, { binary });
    const third = Math.ceil(data.length / 3);
    socket.send(data.subarray(0, third), { binary, fin: false });
    socket.send(data.subarray(third, 2 * third), { binary, fin: false });
    socket.send(data.subarray(2 * third), { binary, fin: true });
  });
}

function upgrade(request, socket, head) {
  socket.on('error', () => {});
  const { pathname: path, searchParams: query } = new URL(request.url, 'http://localhost');
  if (refuse(path, query, request, socket)) return;
  // One for each connection, because the settings are those of its query.
  const server = new WebSocket.Server({
    noServer: true,
    maxPayload: LARGEST,
    perMessageDeflate: deflate(query),
    handleProtocols: (offered) => path === '/subprotocol' && (SUBPROTOCOLS.find((name) => offered.has(name)) ?? false),
  });
  if (path === '/cookies') {
    server.on('headers', (headers) =>
      headers.push('Set-Cookie: session=opened; Path=/; HttpOnly', 'Set-Cookie: seen=yes; Path=/'));
  }
  server.handleUpgrade(request, socket, head, (opened) => handle(path, query, opened, request));
}

function main() {
  const { values: options } = parseArgs({
    options: {
      listen: { type: 'string' }, unix: { type: 'string' }, cert: { type: 'string' }, key: { type: 'string' },
      'until-eof': { type: 'boolean' },
    },
  });
  const tls = options.cert !== undefined;
  const server = tls
    ? https.createServer({ cert: fs.readFileSync(options.cert), key: fs.readFileSync(options.key) })
    : http.createServer();
  server.on('request', (request, response) => response.writeHead(426, { Upgrade: 'websocket' }).end('a WebSocket only\n'));
  server.on('upgrade', upgrade);
  const listening = () => {
    const scheme = tls ? 'wss' : 'ws';
    console.log(options.unix ? `ws+unix:${options.unix}` : `${scheme}://127.0.0.1:${server.address().port}`);
  };
  if (options.unix) server.listen(options.unix, listening);
  else server.listen(Number(options.listen ?? 0), '127.0.0.1', listening);
  process.on('SIGTERM', () => process.exit(0));
  if (options['until-eof']) process.stdin.on('end', () => process.exit(0)).resume();
}

main();
