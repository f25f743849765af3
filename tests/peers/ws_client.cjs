// Drives an echo server with the npm package ws, under every offer of compression.
//
//     node ws_client.cjs --url ws://127.0.0.1:9001/ [--expect deflate|none] [--insecure]
//
// The same as websockets_client.py, which says more, by another hand: 288 offers of
// permessage-deflate (RFC 7692), each on a connection of its own, which exchanges text, binary,
// empty, large and fragmented messages several times and closes with 1000.
//
// --expect deflate  every offer must be agreed to (default), by an answer that the offer allows, and
//                   a large text must come back in fewer bytes
// --expect none     no offer may be agreed to; the messages must come back all the same
// --insecure        takes any certificate of a wss:// server
//
// `ws` must be found by `require`: put its node_modules directory into NODE_PATH.  Prints a line for
// each group of offers, 'ok' or 'FAIL', and last 'N passed, N failed'.
// Exit status: 0 all passed; 1 an offer failed; 64 wrong arguments.
'use strict';

const assert = require('node:assert/strict');
const { parseArgs } = require('node:util');

const WebSocket = require('ws');

const SOON = 30_000; // milliseconds for all that happens on one connection
const KNOWN = ['server_no_context_takeover', 'client_no_context_takeover', 'server_max_window_bits',
  'client_max_window_bits'];

// Numbers that look random, the same in every run.
function generator(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

// What is sent: names, and payloads as they go out; an array is sent as fragments.
function messages() {
  const random = generator(7692);
  const pick = (from, count, between) =>
    Array.from({ length: count }, () => from[Math.floor(random() * from.length)]).join(between);
  const letters = [...'abcdefghijklmnopqrstuvwxyzäß€😀'];
  const words = Array.from({ length: 400 }, () => pick(letters, 7, ''));
  const bytes = (count) => Buffer.from(Array.from({ length: count }, () => Math.floor(random() * 256)));
  // Repeated at distances on both sides of every window: who looks back further than was agreed on
  // is found out by the other end's inflater.
  const far = [30, 60, 120, 250, 500, 1000, 2000].map((count) => pick(words, count, ' '));
  return [
    ['a short text', 'Hello'],
    ['an empty text', ''],
    ['an empty binary', Buffer.alloc(0)],
    ['a kilobyte of JSON', JSON.stringify(words.slice(0, 12).map((text, sequence) =>
      ({ type: 'message', room: 'lobby', from: 'alice', text, sequence })))],
    ['random bytes', bytes(1000)],
    ['zeros', Buffer.alloc(70_000)],
    ['a large text', far.map((block) => block + block).join('')],
    ['large random bytes', bytes(80_000)],
    ['a text in fragments', [far[2], '', far[3], far[2]]],
    ['a binary in fragments', [bytes(300), Buffer.alloc(5000), Buffer.alloc(0)]],
  ];
}

// The answer: null without the extension, else {parameter: value or true}.
function parametersOf(response) {
  const header = response.headers['sec-websocket-extensions'];
  if (header === undefined) return null;
  const answers = header.split(',');
  assert.equal(answers.length, 1, `one extension was offered, the answer is ${header}`);
  const [name, ...parameters] = answers[0].split(';').map((part) => part.trim());
  assert.equal(name, 'permessage-deflate');
  const answer = {};
  for (const parameter of parameters) {
    const [key, value] = parameter.split('=');
    assert.ok(!(key in answer), `${key} twice`);
    answer[key] = value === undefined ? true : Number(value.replaceAll('"', ''));
  }
  return answer;
}

// RFC 7692 section 7.1, from the client's side.
function checkAnswer(offer, answer) {
  for (const [key, value] of Object.entries(answer)) {
    assert.ok(KNOWN.includes(key), `unknown parameter ${key}`);
    if (key.endsWith('takeover')) assert.equal(value, true, `${key}=${value}`);
    else assert.ok(Number.isInteger(value) && value >= 8 && value <= 15, `${key}=${value}`);
  }
  if (offer.serverNoContextTakeover) {
    assert.ok(answer.server_no_context_takeover, 'server_no_context_takeover was ignored');
  }
  if (offer.serverMaxWindowBits) {
    const given = answer.server_max_window_bits;
    assert.ok(given <= offer.serverMaxWindowBits, `server_max_window_bits=${given}`);
  }
  const given = answer.client_max_window_bits;
  if (given !== undefined) {
    assert.ok(offer.clientMaxWindowBits, 'client_max_window_bits was not offered');
    assert.ok(given <= Number(offer.clientMaxWindowBits === true ? 15 : offer.clientMaxWindowBits),
      `client_max_window_bits=${given}`);
  }
}

function send(socket, payload) {
  if (!Array.isArray(payload)) return socket.send(payload);
  const binary = Buffer.isBuffer(payload[0]);
  payload.forEach((part, place) => socket.send(part, { binary, fin: place === payload.length - 1 }));
}

async function exchange(socket, received, compressed, exchanged) {
  for (let round = 0; round < 2; round += 1) {
    for (const [name, payload] of exchanged) {
      const before = socket._socket.bytesRead;
      const back = received();
      send(socket, payload);
      const [data, isBinary] = await back;
      const binary = Buffer.isBuffer(Array.isArray(payload) ? payload[0] : payload);
      const parts = [payload].flat().map((part) => Buffer.from(part));
      const whole = Buffer.concat(parts);
      assert.equal(isBinary, binary, `${name} changed its kind`);
      assert.ok(whole.equals(data), `${name} came back changed`);
      if (name === 'a large text') {
        const took = socket._socket.bytesRead - before;
        assert.equal(took < whole.length, compressed, `${name} of ${whole.length} bytes came back in ${took}`);
      }
    }
  }
}

// One connection.  True where the offer was agreed to.
async function run(offer, options, exchanged) {
  const socket = new WebSocket(options.url, { perMessageDeflate: offer, rejectUnauthorized: !options.insecure });
  const waiting = [];
  let fail;
  const failed = new Promise((_, reject) => { fail = reject; });
  failed.catch(() => {}); // it is raced against below
  const timer = setTimeout(() => fail(new Error('took too long')), SOON);
  socket.on('error', fail);
  socket.on('message', (data, isBinary) => waiting.shift()?.([data, isBinary]));
  const ended = new Promise((resolve) => socket.on('close', resolve));
  ended.then((code) => fail(new Error(`closed with ${code}`)));
  const upgraded = new Promise((resolve) => socket.on('upgrade', resolve));
  const opened = new Promise((resolve) => socket.on('open', resolve));
  const work = async () => {
    const answer = parametersOf(await upgraded);
    await opened;
    if (options.expect === 'none') assert.equal(answer, null, 'agreed to it');
    else assert.ok(answer, 'declined');
    if (answer) checkAnswer(offer, answer);
    const received = () => new Promise((resolve) => { waiting.push(resolve); });
    await exchange(socket, received, answer !== null, exchanged);
    return answer !== null;
  };
  try {
    const agreed = await Promise.race([work(), failed]);
    socket.close(1000, 'done');
    assert.equal(await ended, 1000, 'closed with another code');
    return agreed;
  } finally {
    clearTimeout(timer);
    socket.terminate();
  }
}

async function main() {
  let options;
  try {
    options = parseArgs({
      options: { url: { type: 'string' }, expect: { type: 'string' }, insecure: { type: 'boolean' } },
    }).values;
    options = { expect: 'deflate', insecure: false, ...options };
    if (!options.url || !['deflate', 'none'].includes(options.expect)) throw new Error('which URL?');
  } catch (error) {
    console.error(`${error.message}\nws_client.cjs --url ws://127.0.0.1:PORT/ [--expect deflate|none] [--insecure]`);
    return 64;
  }
  const exchanged = messages();
  // Not 8 bits: this client would then use 9 without saying so.
  const sizes = [9, 10, 11, 12, 13, 14, 15];
  let [passed, failed] = [0, 0];
  for (const serverNoContextTakeover of [false, true]) {
    for (const clientNoContextTakeover of [false, true]) {
      for (const serverMaxWindowBits of [undefined, ...sizes]) {
        const choices = [false, true, ...sizes];
        const wrong = [];
        let agreed = 0;
        for (const clientMaxWindowBits of choices) {
          // false would also refuse these where they come unasked, which RFC 7692 allows.
          const offer = { serverNoContextTakeover: serverNoContextTakeover || undefined,
            clientNoContextTakeover: clientNoContextTakeover || undefined,
            serverMaxWindowBits, clientMaxWindowBits, threshold: 0 };
          try {
            agreed += await run(offer, options, exchanged);
          } catch (error) {
            wrong.push(`client_max_window_bits ${clientMaxWindowBits}: ${error.message}`);
          }
        }
        passed += choices.length - wrong.length;
        failed += wrong.length;
        const named = [serverNoContextTakeover && 'server_no_context_takeover',
          clientNoContextTakeover && 'client_no_context_takeover',
          serverMaxWindowBits && `server_max_window_bits=${serverMaxWindowBits}`].filter(Boolean);
        console.log(`${wrong.length ? 'FAIL' : 'ok  '} ${named.join('; ') || 'no other parameter'}: ` +
          `${choices.length} kinds of client_max_window_bits, ${agreed} agreed, ` +
          `${choices.length - agreed - wrong.length} declined`);
        for (const line of wrong) console.log(`     ${line}`);
      }
    }
  }
  console.log(`\n${passed} passed, ${failed} failed`);
  return failed ? 1 : 0;
}

main().then((status) => process.exit(status));
