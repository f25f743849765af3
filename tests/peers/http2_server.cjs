// WebSockets over HTTP/2 (RFC 8441) by Node's own module `http2`, for clients under test.
//
//     node http2_server.cjs [--cert PEM --key PEM] [--no-extended-connect] [--until-eof]
//
// Listens on a free port of 127.0.0.1, and prints one line once it does: ws://127.0.0.1:PORT for
// HTTP/2 with prior knowledge, wss://127.0.0.1:PORT for h2 and http/1.1 by ALPN.  With
// --no-extended-connect its settings allow no WebSockets.  Ends on SIGTERM, and with --until-eof at
// the end of its standard input.  The frames of RFC 6455 are those of the npm package `ws`, which
// must be found by `require`: put its node_modules directory into NODE_PATH.
//
//     /echo           echoes
//     /subprotocol    chooses chat, and says so
//     /request        says the request's headers as JSON, then echoes
//     /connection     says how many connections there have been, then echoes
//     /close/CODE     closes at once, with the query's reason
//     /push/COUNT     sends so many numbers, then closes with 1000
//     /refuse/STATUS  refuses with that status and a body
//     /extension      accepts, with an extension that nobody has offered
//     /odd            accepts, with a subprotocol that nobody has offered
//     /end            ends the stream at the first message, without a Close
//     /reset          resets it with INTERNAL_ERROR
//     /goaway         ends the connection with GOAWAY and an error
//     /kill           kills this very process
//     /hang           never answers
'use strict';

const fs = require('node:fs');
const http2 = require('node:http2');
const { parseArgs } = require('node:util');

const WebSocket = require('ws');

const LARGEST = 32 << 20;
let connections = 0;

function open(stream, headers = {}) {
  stream.respond({ ':status': 200, ...headers });
  // What ws makes of an upgraded connection it makes of a stream as well.
  const socket = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 30_000 });
  socket.setSocket(stream, Buffer.alloc(0), { maxPayload: LARGEST, allowSynchronousEvents: true, skipUTF8Validation: false });
  socket.on('error', () => {}); // of the peer's making; the stream ends by itself
  return socket;
}

function echo(socket) {
  socket.on('message', (data, binary) => socket.send(data, { binary }));
}

function answer(stream, headers) {
  const { pathname: path, searchParams: query } = new URL(headers[':path'], 'http://localhost');
  const found = (pattern) => path.match(pattern)?.[1];
  if (path === '/hang') return;
  let number = found(/^\/refuse\/(\d+)$/);
  if (number) {
    stream.respond({ ':status': Number(number), 'x-refusal': number });
    return void stream.end(`refused with ${number}`);
  }
  if (path === '/extension') return void open(stream, { 'sec-websocket-extensions': 'foo' });
  if (path === '/odd') return void open(stream, { 'sec-websocket-protocol': 'odd' });
  number = found(/^\/close\/(\d+)$/);
  if (number) return void open(stream).close(Number(number), query.get('reason') ?? '');
  if (path === '/end') return void open(stream).on('message', () => stream.end());
  if (path === '/reset') return void open(stream).on('message', () => stream.destroy(new Error('enough')));
  if (path === '/goaway') {
    return void open(stream).on('message', () => stream.session.destroy(undefined, http2.constants.NGHTTP2_INTERNAL_ERROR));
  }
  if (path === '/kill') return void open(stream).on('message', () => process.kill(process.pid, 'SIGKILL'));
  number = found(/^\/push\/(\d+)$/);
  if (number) {
    const socket = open(stream);
    for (let count = 0; count < Number(number); count += 1) socket.send(String(count));
    return void socket.close(1000);
  }
  const chosen = path === '/subprotocol' ? { 'sec-websocket-protocol': 'chat' } : {};
  const socket = open(stream, chosen);
  if (path === '/subprotocol') socket.send('chat');
  if (path === '/request') socket.send(JSON.stringify(Object.entries(headers)));
  if (path === '/connection') socket.send(String(connections));
  echo(socket);
}

function main() {
  const { values: options } = parseArgs({
    options: {
      cert: { type: 'string' }, key: { type: 'string' },
      'no-extended-connect': { type: 'boolean' }, 'until-eof': { type: 'boolean' },
    },
  });
  const tls = options.cert !== undefined;
  const settings = { enableConnectProtocol: !options['no-extended-connect'] };
  const server = tls
    ? http2.createSecureServer({
      settings, allowHTTP1: true, cert: fs.readFileSync(options.cert), key: fs.readFileSync(options.key),
    })
    : http2.createServer({ settings });
  server.on('session', (session) => {
    connections += 1;
    session.on('error', () => {});
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    if (headers[':method'] === 'CONNECT' && headers[':protocol'] === 'websocket') return answer(stream, headers);
    stream.respond({ ':status': 404 });
    stream.end();
  });
  // Over HTTP/1.1, which is what ALPN may say.
  const http1 = new WebSocket.Server({ noServer: true, maxPayload: LARGEST });
  server.on('upgrade', (request, socket, head) => http1.handleUpgrade(request, socket, head, echo));
  server.listen(0, '127.0.0.1', () => console.log(`${tls ? 'wss' : 'ws'}://127.0.0.1:${server.address().port}`));
  process.on('SIGTERM', () => process.exit(0));
  if (options['until-eof']) process.stdin.on('end', () => process.exit(0)).resume();
}

main();
