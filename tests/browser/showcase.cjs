// Drives the showcase example in a real headless Chromium, and says what it found.
//
//     node showcase.cjs --url http://127.0.0.1:8000 --chromium /usr/bin/chromium --screenshots DIR
//
// The server at --url must be running.  With another one at --ending-url, and `--board-lifetime 20`
// both for that and here, the end of a board is seen too; all other checks want boards that outlive
// them.  `playwright-core` must be found by `require`: put its node_modules directory into NODE_PATH.
// Takes about a minute.
//
// Prints a line for each check, 'ok' or 'FAIL', and last 'N passed, N failed'.  Leaves in DIR one
// picture per page and look: {index,echo,data,tick,chat,board,sensors,lab}-{light,dark,phone}.png, the
// phone 390 pixels wide, and states that are seldom seen.
// Exit status: 0 all passed; 1 a check failed; 2 the browser does not start; 64 wrong arguments.
//
// What the pages have to offer
//
//     /       links to /echo and to /data
//     /test   answers `Yes this is a test!`
//     /echo   #url         input: the address of the socket, at first that of /echo on this server
//             #connect     button: opens the connection
//             #disconnect  button: closes it
//             #message     input: the text to send
//             #send        button: sends it
//             #log         one child element for each entry, with the time to the millisecond
//                          (12:34:56.789); a message shows as its text, a close as its code and
//                          'clean' or 'unclean'
//             #state       text: `disconnected`, `connecting` or `connected`; after the loss of a
//                          connection as in applications.cjs
//             The text `quit` makes the server close with 1000.
//     /data   connects by itself.
//             #plot        canvas
//             #count       text: the number of points received
//             #state       text: contains `closed 1000 clean` at the end
//             The socket sends `0 <i> <random in [0,1)>\n` for i in 0..100, one each 100 ms, and
//             then closes with 1000, also when the client keeps sending.
//     others  see applications.cjs
//     all     follow `prefers-color-scheme`, fit a phone, ask no other host for anything, and log
//             no error to the console.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');

const applications = require('./applications.cjs');
const {
  DESKTOP, PHONE, SOON, bothLooks, check, closes, fits, group, launch, open, run, sockets, until, upgrade,
} = require('./browser.cjs');

const USAGE = 'showcase.cjs --url http://127.0.0.1:PORT --chromium PROGRAM --screenshots DIR [--ending-url URL --board-lifetime SECONDS]';

// The stream takes 10 s, and may be as late as anything else.
const STREAM = 10_000 + SOON;
const POINTS = 100;
const EVERY = 100; // ms from one to the next

async function main() {
  const { url, chromium, screenshots, 'ending-url': endingUrl, 'board-lifetime': lifetime } = options();
  fs.mkdirSync(screenshots, { recursive: true });
  const browser = await launch(chromium);
  const showcase = {
    url,
    open: (look, at, more) => open(browser, look, new URL(at, url), more),
    picture: (page, name) => page.screenshot({ path: path.join(screenshots, `${name}.png`), fullPage: true, timeout: STREAM }),
  };
  try {
    // The streams of /data take 10 s each: they run beside the rest.
    const streams = [
      group('data', () => dataPage(showcase)),
      group('data, client sends', () => sendingClient(showcase)),
    ];
    if (endingUrl) streams.push(group('board, its end', () => applications.boardEnds(showcase, endingUrl, Number(lifetime))));
    await group('http', () => plainHttp(showcase));
    await group('handshake', () => handshakes(showcase));
    await group('index', () => indexPage(showcase));
    await group('echo', () => echoPage(showcase));
    await group('compression', () => applications.compression(showcase));
    for (const [name, checks] of applications.inTurn) await group(name, () => checks(showcase));
    await Promise.all(streams);
  } finally {
    await browser.close();
  }
}

// --- what is checked ---

async function plainHttp({ url }) {
  const test = await fetch(new URL('/test', url));
  check('/test answers 200', test.status === 200, test.status);
  const text = await test.text();
  check('/test answers `Yes this is a test!`', text.trim() === 'Yes this is a test!', text);
  const nowhere = await fetch(new URL('/nowhere', url));
  check('an unknown path answers 404', nowhere.status === 404, nowhere.status);
  for (const socket of ['/echo', '/data']) {
    const answer = await fetch(new URL(socket, url));
    const type = answer.headers.get('content-type');
    const page = answer.status === 200 && /^text\/html/.test(type);
    check(`GET ${socket} without an upgrade answers its page or 426`, page || answer.status === 426, `${answer.status} ${type}`);
  }
}

async function handshakes({ url }) {
  const good = await upgrade(url, '/echo');
  check('an upgrade on /echo answers 101', good.status === 101, good.status);
  check('its Sec-WebSocket-Accept is right', good.accept === good.expected, good.accept);
  const unknown = await upgrade(url, '/nowhere');
  check('an upgrade on an unknown path answers 404', unknown.status === 404, unknown.status);
  const page = await upgrade(url, '/test');
  check('an upgrade on a path that is no socket is not accepted', page.status !== 101, page.status);
  const foreign = await upgrade(url, '/echo', 'http://elsewhere.example');
  check('an upgrade from a page of another origin answers 403', foreign.status === 403, foreign.status);
  check('and says which one', foreign.text.includes('http://elsewhere.example'), foreign.text);
}

async function indexPage(showcase) {
  const page = await showcase.open(DESKTOP, '/');
  const links = await page.$$eval('a[href]', (all) => all.map((a) => new URL(a.href).pathname));
  for (const wanted of ['/echo', '/data']) check(`it links to ${wanted}`, links.includes(wanted), links.join(' '));
  await bothLooks(showcase, page, 'index');
  await page.context().close();

  const phone = await showcase.open(PHONE, '/');
  await fits(phone);
  await showcase.picture(phone, 'index-phone');
  await phone.context().close();
}

async function echoPage(showcase) {
  const page = await showcase.open(DESKTOP, '/echo');
  const address = await page.inputValue('#url');
  check('#url is the address of /echo', address === new URL('/echo', showcase.url).href.replace(/^http/, 'ws'), address);
  await connect(page);

  // Markup and characters of two, three and four bytes come back as they are.
  const message = `<b>"é" & ✓ 🎈</b>`;
  const before = await entries(page);
  await send(page, message);
  await until('the message comes back', page, (text) => document.querySelector('#log').textContent.split(text).length > 2, message);
  const added = (await entries(page)).slice(before.length);
  check('the log shows what was sent and what came back', added.filter((entry) => entry.includes(message)).length >= 2, added.join(' | '));
  check('each with milliseconds', added.length > 0 && added.every((entry) => /\d:\d\d[.,]\d{3}\b/.test(entry)), added.join(' | '));
  check('#message is ready for the next one', (await page.inputValue('#message')) === '' || (await page.isEnabled('#message')));

  await send(page, 'quit');
  await state(page, '`quit` disconnects', 'disconnected');
  const [first] = await closes(page);
  check('`quit` closes with 1000, clean', first?.code === 1000 && first?.clean, JSON.stringify(first));
  const closed = (await entries(page)).find((entry) => /\b1000\b/.test(entry) && /\bclean\b/i.test(entry));
  check('the log shows code 1000 and clean', Boolean(closed), (await entries(page)).slice(-2).join(' | '));
  await bothLooks(showcase, page, 'echo');

  await connect(page);
  await page.click('#disconnect');
  await state(page, '#disconnect disconnects', 'disconnected');
  const last = (await closes(page)).at(-1);
  check('#disconnect closes cleanly', last.clean && [1000, 1005].includes(last.code), JSON.stringify(last));
  await page.context().close();

  const phone = await showcase.open(PHONE, '/echo');
  await connect(phone);
  await send(phone, 'A message that is somewhat longer than a phone is wide, and-a-word-that-cannot-be-broken-' + 'x'.repeat(60));
  await until('the message comes back on the phone', phone, () => document.querySelector('#log').textContent.split('broken-').length > 2);
  await fits(phone);
  await showcase.picture(phone, 'echo-phone');
  await phone.context().close();
}

async function dataPage(showcase) {
  // The run begins with the page, and may be over when these two are open.
  const page = await showcase.open(DESKTOP, '/data', { before: keepCounts });
  const phone = await showcase.open(PHONE, '/data');
  await until(`#count reaches ${POINTS}`, page, (n) => parseInt(document.querySelector('#count').textContent.replace(/^\D*/, ''), 10) === n, POINTS, STREAM);
  await until('#state ends with `closed 1000 clean`', page, () => document.querySelector('#state').textContent.includes('closed 1000 clean'));
  const whole = await page.$eval('#plot', (plot) => plot.toDataURL());
  const { counts, early } = await page.evaluate(() => kept);
  check('points are shown as they arrive', counts.length > 4 && counts[0] < POINTS, counts.join(' '));
  check('the plot was drawn while points arrived', early !== whole);
  const colours = await page.$eval('#plot', (plot) => {
    const { data } = plot.getContext('2d').getImageData(0, 0, plot.width, plot.height);
    return new Set(new Uint32Array(data.buffer)).size;
  });
  check('the plot shows something', colours > 1, `${colours} colour`);

  const [socket] = await sockets(page);
  const wrong = socket.received.findIndex(({ data }, i) => !(data.startsWith(`0 ${i} `) && /^0 \d+ (0(\.\d+)?|\d(\.\d+)?e-\d+)\n$/.test(data)));
  check('the messages are `0 <i> <random>`', wrong === -1, JSON.stringify(socket.received[wrong]));
  const points = socket.received.length;
  check(`${POINTS} messages came`, points === POINTS, points);
  // A stall makes messages late, and none early: the last is the bound for one end, and for the other
  // what counts is the least late of each half.
  const late = socket.received.map(({ at }, i) => at - socket.begun - i * EVERY);
  const [first, second] = [late.slice(0, POINTS / 2), late.slice(POINTS / 2)].map((half) => Math.min(...half));
  const isPaced = late.at(-1) > -EVERY && second - first < POINTS / 2 * EVERY / 2;
  check(`they came every ${EVERY} ms`, isPaced, late.map(Math.round).join(' '));
  await page.waitForTimeout(1500);
  check('a run that is complete is not begun again', (await sockets(page)).length === 1);
  check('/data closes with 1000, clean', socket.close?.code === 1000 && socket.close?.clean, JSON.stringify(socket.close));
  await bothLooks(showcase, page, 'data');
  await page.context().close();

  await until('the stream ends on the phone', phone, () => document.querySelector('#state').textContent.includes('closed 1000 clean'), null, STREAM);
  await fits(phone);
  await showcase.picture(phone, 'data-phone');
  await phone.context().close();
}

// Runs in the page: keeps each count that #count shows, and what the plot is at the first of them.
function keepCounts() {
  globalThis.kept = { counts: [], early: '' };
  new MutationObserver(() => {
    const count = Number(document.querySelector('#count')?.textContent);
    if (!count || count === kept.counts.at(-1)) return;
    if (kept.counts.push(count) === 1) kept.early = document.querySelector('#plot').toDataURL();
  }).observe(document, { childList: true, subtree: true });
}

// A client that goes on sending must still see every point and a clean close.
async function sendingClient(showcase) {
  const page = await showcase.open(DESKTOP, '/');
  const seen = await page.evaluate((limit) => new Promise((resolve) => {
    const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/data');
    const found = { points: 0, sent: 0 };
    const send = () => {
      if (socket.readyState === WebSocket.OPEN) { socket.send('still here'); found.sent += 1; }
    };
    const sending = setInterval(send, 20);
    socket.onopen = send;
    const end = (more) => { clearInterval(sending); resolve({ ...found, ...more }); };
    socket.onmessage = () => { found.points += 1; send(); }; // however late its timers are
    // What it said when the server's Close was there, and it did not know yet, stays unsent: then a browser
    // calls the end unclean, however clean it was.
    socket.onclose = ({ code, wasClean }) => end({ code, clean: wasClean || socket.bufferedAmount > 0 });
    setTimeout(() => end({ late: true }), limit);
  }), STREAM);
  const right = seen.points === POINTS && seen.code === 1000 && seen.clean && seen.sent >= POINTS;
  check(`it gets ${POINTS} points and 1000, clean`, right, JSON.stringify(seen));
  await page.context().close();
}

// --- the pieces ---

async function connect(page) {
  if ((await page.textContent('#state')).trim() !== 'connected') await page.click('#connect');
  await state(page, '#connect connects', 'connected');
}

async function send(page, text) {
  await page.fill('#message', text);
  await page.click('#send');
}

function entries(page) {
  return page.$$eval('#log > *', (all) => all.map((entry) => entry.textContent));
}

function state(page, name, wanted) {
  return until(name, page, (text) => document.querySelector('#state').textContent.trim() === text, wanted);
}

// --- the arguments and the end ---

function options() {
  const text = { type: 'string' };
  try {
    const { values } = parseArgs({ options: { url: text, chromium: text, screenshots: text, 'ending-url': text, 'board-lifetime': text } });
    for (const name of ['url', 'chromium', 'screenshots']) if (!values[name]) throw new Error(`--${name} is missing`);
    if (!['127.0.0.1', 'localhost'].includes(new URL(values.url).hostname)) throw new Error('--url must be on 127.0.0.1');
    if (Boolean(values['ending-url']) !== values['board-lifetime'] > 0) throw new Error('--ending-url goes with --board-lifetime');
    return values;
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    process.exit(64);
  }
}

run(main);
