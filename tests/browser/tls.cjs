// Chromium over TLS: which version of HTTP its sockets take, and that they are the same on each.
//
//     node tls.cjs --url https://127.0.0.1:8443 --chromium /usr/bin/chromium
//
// The showcase must be running at --url, with --tls. `playwright-core` must be found by `require`: put
// its node_modules directory into NODE_PATH.  Takes about 20 seconds.
//
// The server tells the version: GET /version that of the request, a socket on /version that of its own
// opening.  A browser that has a page over HTTP/2 opens its sockets on the same connection (RFC 8441);
// one without HTTP/2 opens a connection for each.
//
// Prints a line for each check, 'ok' or 'FAIL', and last 'N passed, N failed'.  Exit status: 0 all
// passed; 1 a check failed; 2 the browser does not start; 64 wrong arguments.
'use strict';

const { parseArgs } = require('node:util');

const applications = require('./applications.cjs');
const { DESKTOP, SOON, check, group, launch, open, run } = require('./browser.cjs');

// The certificate vouches for itself.
const TRUSTING = '--ignore-certificate-errors';
const VERSIONS = [['HTTP/2.0', []], ['HTTP/1.1', ['--disable-http2']]];

async function main() {
  const { url, chromium } = options();
  for (const [version, more] of VERSIONS) {
    const browser = await launch(chromium, [TRUSTING, ...more]);
    const showcase = {
      url,
      open: (look, at, options) => open(browser, look, new URL(at, url), options),
      picture: async () => {},
    };
    try {
      await group(`${version}, the version`, () => versions(showcase, version));
      await group(`${version}, compression`, () => applications.compression(showcase));
      await group(`${version}, closing`, () => closing(showcase));
      await group(`${version}, chat`, () => applications.chat(showcase));
      await group(`${version}, afterwards`, () => versions(showcase, version));
    } finally {
      await browser.close();
    }
  }
}

async function versions(showcase, version) {
  const page = await showcase.open(DESKTOP, '/');
  const seen = await page.evaluate(async (limit) => {
    const get = await (await fetch('/version')).text();
    const sockets = await Promise.all([1, 2, 3].map(() => new Promise((resolve) => {
      const socket = new WebSocket(`wss://${location.host}/version`);
      socket.onmessage = ({ data }) => resolve(data);
      socket.onclose = ({ code }) => resolve(`closed ${code}`);
      setTimeout(() => resolve('nothing'), limit);
    })));
    return { get, sockets };
  }, SOON);
  check(`the page comes by ${version}`, seen.get === version, seen.get);
  check(`the sockets are opened by ${version}`, seen.sockets.every((it) => it === version), seen.sockets.join(' '));
  await page.context().close();
}

// Codes and reasons, both ways.
async function closing(showcase) {
  const page = await showcase.open(DESKTOP, '/');
  const close = (act) => page.evaluate(([given, limit]) => new Promise((resolve) => {
    const socket = new WebSocket(`wss://${location.host}/echo`);
    socket.onopen = () => (given === 'quit' ? socket.send('quit') : socket.close(...given));
    socket.onclose = ({ code, reason, wasClean }) => resolve(`${code} ${reason} ${wasClean ? 'clean' : 'unclean'}`);
    setTimeout(() => resolve('late'), limit);
  }), [act, SOON]);
  const quit = await close('quit');
  check('`quit` closes with 1000, clean', quit === '1000  clean', quit);
  const own = await close([3001, 'grün']);
  check('a code of the page comes back, clean', /^3001 .*clean$/.test(own) && !own.includes('unclean'), own);
  const none = await close([]);
  check('no code comes back as 1005, clean', none === '1005  clean', none);
  await page.context().close();
}

function options() {
  const text = { type: 'string' };
  try {
    const { values } = parseArgs({ options: { url: text, chromium: text } });
    for (const name of ['url', 'chromium']) if (!values[name]) throw new Error(`--${name} is missing`);
    if (new URL(values.url).protocol !== 'https:') throw new Error('--url must begin with https');
    return values;
  } catch (error) {
    console.error(`${error.message}\ntls.cjs --url https://127.0.0.1:PORT --chromium PROGRAM`);
    process.exit(64);
  }
}

run(main);
