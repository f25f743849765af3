// What the checks of the pages share: a browser, pages that are watched, and the report.
'use strict';

const { AsyncLocalStorage } = require('node:async_hooks');
const crypto = require('node:crypto');
const net = require('node:net');

// Chromium's own traffic (updates, sync, safe browsing) is off, and no name but this machine's
// resolves: whatever a page asks another host for fails, and is seen.  Root has no sandbox.
const CHROMIUM_ARGUMENTS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
];
const DESKTOP = { viewport: { width: 1280, height: 800 }, colorScheme: 'light' };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

// A reply, or a change of the page, must come within this time.  It is there for what never comes: a
// busy machine stalls for seconds, and no check may depend on its not doing so.
const SOON = 30_000;

// What `open` has recorded of the page's sockets.
function sockets(page) {
  return page.evaluate(() => globalThis.socketsOpened);
}

function closes(page) {
  return page.evaluate(() => socketsOpened.map(({ close }) => close).filter(Boolean));
}

async function bothLooks(showcase, page, name) {
  const backgrounds = [];
  for (const look of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: look });
    await page.waitForTimeout(300);
    await showcase.picture(page, `${name}-${look}`);
    backgrounds.push(await page.evaluate(() => {
      const clear = 'rgba(0, 0, 0, 0)';
      const all = [document.body, document.documentElement].map((at) => getComputedStyle(at).backgroundColor);
      return all.find((colour) => colour !== clear) ?? `canvas ${getComputedStyle(document.documentElement).colorScheme}`;
    }));
  }
  const differ = backgrounds[0] !== backgrounds[1] || /light dark|dark light/.test(backgrounds[0]);
  check('light and dark differ', differ, backgrounds.join(' and '));
}

async function fits(page) {
  const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.screen.width]);
  check('it fits the width of a phone', content <= screen, `${content} of ${screen} pixels`);
}

// Waits for what `predicate` says of the page, as one check; when it does not come, the group ends.
async function until(name, page, predicate, argument = null, timeout = SOON) {
  const holds = await page.waitForFunction(predicate, argument, { timeout, polling: 50 }).then(() => true, (error) => error);
  if (holds === true) return check(name, true);
  const seen = await page.evaluate(() => ['#state', '#count', '#log'].map((id) => {
    const text = document.querySelector(id)?.textContent;
    return text === undefined ? '' : `${id}: ${text.slice(-200)}`;
  }).filter(Boolean).join(', '));
  check(name, false, `not within ${timeout} ms; ${seen}`);
  throw new Stop();
}

// Opens a page in a context of its own.  It records every socket beside the page's own handlers,
// so that what the page writes can be compared with what happened; its times are milliseconds of the
// page's `performance.now()`.  `before` runs in the page before its own scripts.
async function open(browser, look, url, { mayLoseSockets = false, before = null } = {}) {
  const context = await browser.newContext(look);
  if (before) await context.addInitScript(before);
  await context.addInitScript(() => {
    const MOST = 2_000; // of each, or a page under load would fill the memory
    const opened = [];
    Object.defineProperty(globalThis, 'socketsOpened', { value: opened });
    globalThis.WebSocket = class extends WebSocket {
      constructor(...given) {
        super(...given);
        this.seen = { url: this.url, begun: performance.now(), open: null, sent: null, received: [], close: null };
        opened.push(this.seen);
        this.addEventListener('open', () => { this.seen.open = performance.now(); });
        this.addEventListener('message', ({ data }) => {
          if (this.seen.received.length < MOST) this.seen.received.push({ data, at: performance.now() });
        });
        this.addEventListener('close', ({ code, reason, wasClean }) => {
          this.seen.close = { code, reason, clean: wasClean, at: performance.now() };
        });
      }

      send(data) {
        super.send(data);
        this.seen.sent = data; // the last is enough
      }
    };
  });
  const page = await context.newPage();
  page.setDefaultTimeout(SOON);
  watch(page, url, mayLoseSockets);
  const answer = await page.goto(url.href);
  check(`${url.pathname} answers a page`, answer.status() === 200, answer.status());
  return page;
}

// Console errors and requests to other hosts are failures whenever they come.
function watch(page, url, mayLoseSockets) {
  const at = url.pathname;
  const requested = (to) => {
    const target = new URL(to);
    if (/^(https?|wss?):$/.test(target.protocol) && target.host !== url.host) check(`${at} asks no other host`, false, to);
  };
  page.on('request', (request) => requested(request.url()));
  page.on('websocket', (socket) => requested(socket.url()));
  page.on('pageerror', (error) => check(`${at} raises no error`, false, error.message));
  page.on('console', (entry) => {
    // What the browser itself says of a socket that was refused, or of the icon, which it asks for late.
    if (mayLoseSockets && (/^WebSocket connection to /.test(entry.text()) || entry.location().url.endsWith('/icon.svg'))) return;
    if (entry.type() === 'error') check(`${at} logs no error`, false, `${entry.text()} (${entry.location().url})`);
  });
}

// `more`: arguments of the browser's own.
async function launch(executablePath, more = []) {
  try {
    const { chromium } = require('playwright-core');
    return await chromium.launch({ executablePath, args: [...CHROMIUM_ARGUMENTS, ...more], timeout: 30_000 });
  } catch (error) {
    console.error(`the browser does not start: ${error.message.split('\n')[0]}`);
    process.exit(2);
  }
}

// A WebSocket handshake by hand: the browser's API does not tell a refusal's status.
function upgrade(url, target, origin = new URL(url).origin) {
  const { hostname, port, host } = new URL(url);
  const key = crypto.randomBytes(16).toString('base64');
  const expected = crypto.createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  const request = [
    `GET ${target} HTTP/1.1`, `Host: ${host}`, 'Connection: keep-alive, Upgrade', 'Upgrade: websocket',
    `Sec-WebSocket-Key: ${key}`, 'Sec-WebSocket-Version: 13', `Origin: ${origin}`,
  ];
  return new Promise((resolve, reject) => {
    let head = '';
    const socket = net.connect(Number(port), hostname, () => socket.write(`${request.join('\r\n')}\r\n\r\n`));
    const end = (result) => { socket.destroy(); result(); };
    socket.setTimeout(SOON, () => end(() => reject(new Error(`no answer to an upgrade on ${target}`))));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`the connection closed without an answer to an upgrade on ${target}`)));
    socket.on('data', (bytes) => {
      head += bytes.toString('latin1');
      if (!head.includes('\r\n\r\n')) return;
      const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
      const accept = /\r\nsec-websocket-accept: *(\S+)/i.exec(head)?.[1];
      const text = head.slice(head.indexOf('\r\n\r\n') + 4);
      // The body may come behind its head.
      if (text.length < Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0)) return;
      end(() => resolve({ status, accept, expected, text }));
    });
  });
}

// --- the report ---

// Ends a group of checks whose next ones would only repeat the failure.
class Stop extends Error {}

const groups = new AsyncLocalStorage();
let passed = 0;
let failed = 0;

function check(name, holds, found = '') {
  if (holds) passed += 1; else failed += 1;
  const title = `${groups.getStore() ?? 'page'}: ${name}`;
  console.log(holds ? `ok    ${title}` : `FAIL  ${title}${found === '' ? '' : `: ${found}`}`);
}

// Runs checks whose lines begin with `name`; an error among them is one more that failed.
function group(name, checks) {
  return groups.run(name, async () => {
    try {
      await checks();
    } catch (error) {
      if (!(error instanceof Stop)) check('goes to its end', false, error.message.split('\n')[0]);
    }
  });
}

// Runs the checks of a program, prints how many passed and failed, and ends the process by that.
async function run(main) {
  try {
    await main();
  } catch (error) {
    console.error(error);
    failed += 1;
  }
  console.log(`\n${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}

module.exports = {
  DESKTOP, PHONE, SOON, bothLooks, check, closes, fits, group, launch, open, run, sockets, until, upgrade,
};
