// The applications of the showcase, each in at least two tabs.
//
// What their pages have to offer, beside what showcase.cjs says of all
//
//     all but /lab    #state: `connecting`, `connected`, `connection lost, …`, `closed …`; they come back
//                     by themselves, and #retry is a button while they wait (/echo if it was open,
//                     /data if its run was cut off)
//     /tick           #tick: the newest count; #message, #send, #log
//     /chat           #name, #rename, #members (one child for each), #message, #send, #log, #leave
//     /board          leads to /board/ID: #board (canvas), #colours, #clear, #link, #count (dots by
//                     others), #ended
//     /sensors        #azimuth … #z, #count, #simulate, #device, #age
//     /lab            #url, #mode, #sockets, #size, #pause, #start; #open, #lost, #count, #rate,
//                     #median; #wrong says what cannot be
'use strict';

const net = require('node:net');

const { DESKTOP, PHONE, SOON, bothLooks, check, closes, fits, sockets, until } = require('./browser.cjs');

// A page waits so long at most before it tries again, in milliseconds.
const LATEST = 15_000;

// The browser and the server both compress, and nothing is lost.
async function compression(showcase) {
  const page = await showcase.open(DESKTOP, '/');
  const seen = await page.evaluate((limit) => new Promise((resolve) => {
    const noise = crypto.getRandomValues(new Uint8Array(60_000));
    const messages = {
      'a short text': 'x', 'an empty text': '', 'a text': 'grün ✓ 🎈 '.repeat(500), 'a large text': 'a lot of text '.repeat(60_000),
      'an empty binary': new Uint8Array(0), 'a binary that shrinks': new Uint8Array(500_000).fill(7), 'a binary that does not': noise,
    };
    const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/echo');
    socket.binaryType = 'arraybuffer';
    const wrong = [];
    const waiting = Object.entries(messages);
    const same = (sent, got) => (typeof sent === 'string' ? got === sent
      : got instanceof ArrayBuffer && got.byteLength === sent.length && new Uint8Array(got).every((byte, i) => byte === sent[i]));
    const next = () => (waiting.length ? socket.send(waiting[0][1]) : socket.close(1000));
    socket.onopen = next;
    socket.onmessage = ({ data }) => {
      const [name, sent] = waiting.shift();
      if (!same(sent, data)) wrong.push(name);
      next();
    };
    socket.onclose = ({ code, wasClean }) => resolve({ extensions: socket.extensions, code, clean: wasClean, wrong, left: waiting.length });
    setTimeout(() => resolve({ late: true, wrong, left: waiting.length }), limit);
  }), SOON);
  check('permessage-deflate is agreed on', /^permessage-deflate/.test(seen.extensions), seen.extensions);
  const right = seen.wrong.length === 0 && seen.left === 0 && seen.code === 1000 && seen.clean;
  check('texts and binaries of all sizes come back, then 1000, clean', right, JSON.stringify(seen));
  await page.context().close();
}

async function tick(showcase) {
  const one = await showcase.open(DESKTOP, '/tick');
  await connected(one);
  await until('it counts', one, () => /^\d+$/.test(document.querySelector('#tick').textContent));
  await counted(one, 3);
  const known = (await counts(one)).at(-1);
  const two = await showcase.open(DESKTOP, '/tick');
  await connected(two);
  await counted(two, 3);
  const [here, there] = [await counts(one), await counts(two)];
  for (const seen of [here, there]) {
    check('each count is the one before and 1', seen.every((count, i) => i === 0 || count === seen[i - 1] + 1), seen.join(' '));
  }
  // Whatever the second tab has heard was counted after what the first knew then, and the first hears it too.
  check('who comes later sees the counter go on', there[0] > known, `${known} and then ${there}`);
  await until('both tabs see the same counter', one, (last) => socketsOpened[0].received.some(({ data }) => data === `tick:${last}`), there.at(-1));

  const text = 'a:b::c <i>✓</i>';
  await one.fill('#message', text);
  await one.click('#send');
  for (const page of [one, two]) await logged(page, 'both tabs hear it, uncut and as text', text);
  check('it is no markup', (await one.$$('#log i')).length === 0);
  await two.fill('#message', 'and back');
  await two.press('#message', 'Enter');
  await logged(one, 'the other tab hears Enter too', 'and back');
  await bothLooks(showcase, one, 'tick');
  await phone(showcase, '/tick', 'tick', async (page) => {
    await page.fill('#message', `a word that cannot be broken ${'x'.repeat(80)}`);
    await page.click('#send');
    await logged(page, 'the phone is heard', 'broken');
  });
  await close(one, two);
}

async function chat(showcase) {
  const [ann, bob] = [await showcase.open(DESKTOP, '/chat'), await showcase.open(DESKTOP, '/chat')];
  for (const page of [ann, bob]) await connected(page);
  // A client that never says its name.
  const plain = await showcase.open(DESKTOP, '/');
  await plain.evaluate(() => new Promise((resolve, reject) => {
    const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/chat');
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error('no socket'));
  }));
  await rename(ann, 'Ann');
  await rename(bob, '<b>Bøb</b>');
  for (const page of [ann, bob]) await members(page, 'both see who is there', ['<b>Bøb</b>', 'Ann']);
  check('a name is no markup', (await ann.$$('#members b')).length === 0);

  // What the server's parser of JSON refuses and this browser's takes.  What others say is heard too.
  const answers = await plain.evaluate((forgeries) => new Promise((resolve) => {
    const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/chat');
    const seen = [];
    socket.onmessage = ({ data }) => {
      if (data.startsWith('{') && seen.push(data) === forgeries.length) socket.close(1000, forgeries[0]);
    };
    socket.onopen = () => forgeries.forEach((text) => socket.send(text));
    socket.onclose = () => resolve(seen);
  }), ['{"members":[],"members":["Eve"]}', '{"\\ud800":1,"members":["Eve"]}', '{"error":"Eve","error":"Eve"}', '{"members":1,"members":5}']);
  check('a forger is told so', answers.length === 4 && answers.every((text) => JSON.parse(text).error), answers.join(' | '));

  await ann.fill('#message', 'is it: on time?');
  await ann.press('#message', 'Enter');
  for (const page of [ann, bob]) await logged(page, 'a line is heard by both', 'Ann: is it: on time?');
  for (const page of [ann, bob]) {
    check('and nothing of the forger', !(await page.textContent('main')).includes('Eve'));
    check('who changes no list', (await page.textContent('#members')).includes('Ann'));
  }
  await bob.fill('#name', 'B'.repeat(32));
  await bob.click('#rename');
  await members(ann, 'another name is seen', ['Ann', 'B'.repeat(32)]);
  await bothLooks(showcase, ann, 'chat');

  await bob.click('#leave');
  await logged(ann, 'the reason of the Close is the last line', `${'B'.repeat(32)} left the room`);
  await members(ann, 'who has left is not there', ['Ann']);
  await state(bob, 'who has left stays away', 'disconnected');
  await bob.click('#leave');
  await members(ann, 'and may come back', ['Ann', 'B'.repeat(32)]);
  // What a page hears when its tab closes.  A browser that closes it gives it half a second to act on
  // that, which a busy machine may not have.
  await bob.evaluate(() => dispatchEvent(new PageTransitionEvent('pagehide')));
  await until('a closed tab says goodbye', ann, () => document.querySelector('#log').textContent.split('left the room').length > 2);
  await members(ann, 'and is not there', ['Ann']);
  await bob.close();

  const goodbye = (await ann.textContent('#log')).split('left the room').length - 1;
  await until('a plain client hears all that too', plain, (n) => socketsOpened[0].received.filter(({ data }) => data.endsWith('left the room')).length === n, goodbye);
  const lines = await texts(plain);
  check('a plain client sees plain lines only', lines.length > 3 && lines.every((line) => !line.startsWith('{')), lines.join(' | '));
  await phone(showcase, '/chat', 'chat', async (page) => {
    await members(ann, 'the phone is there', null, 2);
    await page.fill('#message', 'from the phone');
    await page.click('#send');
    await logged(ann, 'the phone is heard', 'from the phone');
  });
  await close(ann, bob, plain);
}

async function board(showcase) {
  const one = await showcase.open(DESKTOP, '/board');
  check('/board leads to a board', /^\/board\/[\w-]+$/.test(new URL(one.url()).pathname), one.url());
  const link = await one.inputValue('#link');
  check('#link is its address', link === one.url(), link);
  const two = await showcase.open(DESKTOP, new URL(link).pathname);
  const other = await showcase.open(DESKTOP, '/board/another-one');
  for (const page of [one, two, other]) await connected(page);

  await stroke(one, [.2, .3], [.6, .3]);
  await shared('the stroke arrives', [one, two]);
  for (const [name, page] of [['here', one], ['there', two]]) {
    check(`the stroke is ${name}`, await inked(page, .4, .3));
    check(`and nothing else ${name}`, !(await inked(page, .4, .6)));
  }
  const points = await texts(two);
  const shape = /^\{"x":\d+,"y":\d+,"c":"#[0-9a-f]{6}"\}$/;
  check('points are {"x":…,"y":…,"c":"#rrggbb"}', points.every((text) => shape.test(text)), points[0]);
  check('nobody gets their own', (await texts(one)).length === 0);

  await two.click('#colours label:has([aria-label="red"])');
  await two.focus('#board');
  await two.keyboard.down(' ');
  for (let step = 0; step < 12; step += 1) await two.keyboard.press('Shift+ArrowRight');
  await two.keyboard.up(' ');
  await shared('what the keyboard draws arrives', [one, two]);
  const dots = Number(await two.textContent('#sent'));
  check('a dot, and five for each of twelve steps', dots === 61, dots);
  const red = await pixel(one, .6, .5);
  const near = (value, wanted) => Math.abs(value - wanted) < 3; // a canvas may round
  check('in its colour', near(red[0], 187) && near(red[1], 37) && near(red[2], 37), red);
  await bothLooks(showcase, one, 'board');

  const kinds = await penStroke(two, [.2, .8], [.4, .8]);
  check('the browser calls it a pen', kinds === 'pen', kinds);
  await shared('what a pen draws arrives', [one, two]);
  for (const [name, page] of [['here', two], ['there', one]]) check(`the pen's stroke is ${name}`, await inked(page, .3, .8));

  await phone(showcase, new URL(link).pathname, 'board', async (page) => {
    // A finger: the browser's own gestures must not take it.
    const box = await page.locator('#board').boundingBox();
    const at = (x, y) => ({ x: Math.round(box.x + x * box.width), y: Math.round(box.y + y * box.height) });
    const client = await page.context().newCDPSession(page);
    const touch = (type, points) => client.send('Input.dispatchTouchEvent', { type, touchPoints: points });
    await touch('touchStart', [at(.3, .7)]);
    for (let step = 0; step <= 10; step += 1) await touch('touchMove', [at(.3 + step / 25, .7 + step / 50)]);
    await touch('touchEnd', []);
    await drawn(page, 'a finger draws', [.7, .9]);
    await shared('what the finger draws arrives', [one, two], page);
  });
  check('and is there', await inked(one, .5, .8));

  await two.click('#clear');
  for (const [name, page] of [['here', two], ['there', one]]) await blank(page, `clear clears ${name}`);
  check('the other board saw none of it', (await texts(other)).length === 0);
  await close(one, two, other);
}

// A board that ends while two are at it.
async function boardEnds(showcase, url, lifetime) {
  const ends = new URL('/board/that-ends', url).href;
  const [one, two] = [await showcase.open(DESKTOP, ends), await showcase.open(DESKTOP, ends)];
  for (const page of [one, two]) await until('it was open', page, () => socketsOpened[0].open);
  for (const page of [one, two]) {
    await until('it ends', page, () => socketsOpened[0].close, null, lifetime * 1000 + SOON);
    const [end] = await closes(page);
    check('with 1001, clean', end.code === 1001 && end.clean, JSON.stringify(end));
    check('and says why', end.reason === 'Board can\'t exist for more than 5mn', end.reason);
  }
  // It begins after its first participant has asked, and with the opening or a little later.
  const [{ begun, open, close: { at } }] = await sockets(one);
  const [least, most] = [open, begun].map((start) => (at - start) / 1000);
  check('at the end of its life', most > lifetime - .1 && least < lifetime + 5, `${least} to ${most} s`);
  await until('the page says so', one, () => document.querySelector('#ended').textContent.includes('5mn') && !document.querySelector('#ended').hidden);
  await one.waitForTimeout(1500);
  check('and does not come back', (await sockets(one)).length === 1, (await sockets(one)).length);
  await showcase.picture(one, 'board-ended');
  await close(one, two);
}

async function sensors(showcase) {
  const [producer, viewer] = [await showcase.open(DESKTOP, '/sensors'), await showcase.open(DESKTOP, '/sensors')];
  for (const page of [producer, viewer]) await connected(page);
  const empty = await viewer.$eval('#plot', (plot) => plot.toDataURL());
  const start = await viewer.evaluate(() => performance.now());
  await producer.click('#simulate');
  await until('values arrive', viewer, () => Number(document.querySelector('#count').textContent) >= 20);
  const [socket] = await sockets(viewer);
  const wrong = socket.received.find(({ data }) => !/^-?[\d.]+( -?[\d.]+){5}$/.test(data));
  check('they are six numbers', !wrong, wrong?.data);
  // From before the first: a stall of the viewer only makes them later.
  const pace = (socket.received.at(-1).at - start) / (socket.received.length - 1);
  check('at most every 150 ms', pace > 149, `${Math.round(pace)} ms`);
  check('they are drawn', empty !== await viewer.$eval('#plot', (plot) => plot.toDataURL()));
  await until('and shown as numbers', viewer, () => ['azimuth', 'pitch', 'roll', 'x', 'y', 'z'].every((id) => /^-?\d+\.\d+$/.test(document.querySelector(`#${id}`).textContent)));
  await bothLooks(showcase, viewer, 'sensors');

  const latest = await stopped(producer, viewer);
  const late = await showcase.open(DESKTOP, '/sensors');
  await until('who comes later gets a value at once', late, () => document.querySelector('#count').textContent === '1');
  const got = await texts(late);
  check('and it is the latest', got.length === 1 && got[0] === latest, `${got.join(' | ')} and ${latest}`);

  await phone(showcase, '/sensors', 'sensors', async (page) => {
    // The phone's own sensors, as far as a browser in a box has some.
    await page.click('#device');
    // It moves as soon as it is asked: a page that hears nothing for 3 s gives up.
    await until('the phone sends', page, () => {
      if (document.querySelector('#device').getAttribute('aria-pressed') !== 'true') return false;
      return dispatchEvent(new DeviceOrientationEvent('deviceorientation', { alpha: 77.7, beta: 12.3, gamma: -45.6 }));
    });
    await until('what the phone\'s sensors say arrives', viewer, () => document.querySelector('#azimuth').textContent === '77.7' && document.querySelector('#roll').textContent === '-45.6');
  });
  await close(producer, viewer, late);
}

async function lab(showcase) {
  const [one, two] = [await showcase.open(DESKTOP, '/lab'), await showcase.open(DESKTOP, '/lab')];
  for (const [field, value] of [['#sockets', '0'], ['#sockets', '9999'], ['#size', 'many'], ['#url', 'ftp://127.0.0.1/'], ['#url', 'ws://']]) {
    const before = await one.inputValue(field);
    await one.fill(field, value);
    await one.click('#start');
    await until(`${field} of “${value}” is explained`, one, () => !document.querySelector('#wrong').hidden && document.querySelector('#wrong').textContent.length > 10);
    await one.fill(field, before);
  }
  await one.fill('#sockets', '30');
  await one.press('#sockets', 'Enter');
  await until('it opens as many as asked', one, () => document.querySelector('#open').textContent === '30');
  await state(one, 'it runs', 'running');
  await until('rate and latency are shown', one, () => Number(document.querySelector('#rate').textContent) > 0 && Number(document.querySelector('#median').textContent) > 0);
  const early = await one.$eval('#rates', (plot) => plot.toDataURL());

  // The other tab listens to /tick.
  await two.fill('#url', new URL('/tick', showcase.url).href.replace(/^http/, 'ws'));
  await two.selectOption('#mode', 'subscribe');
  await two.fill('#sockets', '5');
  await two.click('#start');
  await until('all of it listens', two, () => document.querySelector('#open').textContent === '5');
  await until('it hears', two, () => Number(document.querySelector('#count').textContent) >= 10);
  await until('about once a second each', two, () => { const rate = Number(document.querySelector('#rate').textContent); return rate >= 4 && rate <= 6; });
  await until('nothing is lost', one, () => document.querySelector('#lost').textContent === '0');
  await until('the plot goes on', one, (plot) => plot !== document.querySelector('#rates').toDataURL(), early);
  await bothLooks(showcase, one, 'lab');
  for (const [page, asked] of [[one, 30], [two, 5]]) {
    await page.click('#start');
    await state(page, 'it stops', 'stopped');
    await until('every socket closes cleanly', page, () => socketsOpened.every(({ close }) => close?.clean));
    const count = (await closes(page)).length;
    check('and none was opened but those', count === asked, count);
  }

  await phone(showcase, '/lab', 'lab', async (page) => {
    await page.fill('#sockets', '10');
    await page.fill('#pause', '50');
    await page.click('#start');
    await until('it runs on the phone', page, () => Number(document.querySelector('#rate').textContent) > 0);
    await page.waitForTimeout(2000);
  });
  await close(one, two);
}

// Every page comes back by itself, and says meanwhile that it is away.
async function comesBack(showcase) {
  const { hostname, port } = new URL(showcase.url);
  const between = await cuttable(hostname, Number(port));
  const paths = ['/tick', '/chat', '/board/again', '/sensors', '/lab', '/echo', '/data'];
  const pages = [];
  for (const path of paths) {
    pages.push(await showcase.open(DESKTOP, new URL(path, between.url).href, { mayLoseSockets: true }));
  }
  const [, , , , labPage, echoPage, dataPage] = pages;
  await labPage.fill('#sockets', '3');
  await labPage.click('#start');
  await echoPage.click('#connect');
  for (const page of pages.slice(0, -1)) {
    await until('it is connected', page, () => /^(connected|running)$/.test(document.querySelector('#state').textContent));
  }
  // A run of /data takes 10 s: it is to be cut off at its beginning, whenever the others are ready.
  await until('a run has just begun', dataPage, () => {
    const { open, close, received } = socketsOpened.at(-1);
    if (close && document.querySelector('#reconnect').textContent === 'Run again') document.querySelector('#reconnect').click();
    return open && !close && received.length < 20;
  });
  const runs = (await sockets(dataPage)).length;
  between.cut();
  for (const page of pages) {
    await until('it says that the connection is lost', page, () => /connection lost|opening again/.test(document.querySelector('#state').textContent));
  }
  await until('#send waits', pages[0], () => document.querySelector('#send').disabled);
  for (const [page, name] of [[pages[0], 'tick'], [echoPage, 'echo'], [dataPage, 'data']]) await showcase.picture(page, `${name}-lost`);
  await until('Disconnect ends the waiting, Send waits', echoPage, () => !document.querySelector('#disconnect').disabled && document.querySelector('#send').disabled);
  // Seen and pressed in one go, while nobody is there: between two calls the page may have tried by
  // itself, and once it is back there is nothing to press.
  await until('#retry tries at once', pages[0], () => {
    const retry = document.querySelector('#retry');
    if (retry.hidden) return false;
    const before = socketsOpened.length;
    retry.click();
    return socketsOpened.length === before + 1;
  });
  between.mend();
  for (const page of pages) {
    await until('it comes back by itself', page, () => /^(connected|running|closed 1000 clean)$/.test(document.querySelector('#state').textContent), null, LATEST + SOON);
  }
  await echoPage.fill('#message', 'once more');
  await echoPage.click('#send');
  await until('the echo is back', echoPage, () => document.querySelector('#log').textContent.split('once more').length > 2);
  const anew = (await sockets(dataPage)).length;
  check('the data run anew', anew > runs, anew);
  await members(pages[1], 'the chat knows who is there again', null, 1);
  await close(...pages);
  between.end();
}

// --- the pieces ---

// A way to the server that can be cut.  It goes on listening: a port that is given up may be somebody
// else's when it is wanted back.
async function cuttable(hostname, port) {
  const open = new Set();
  let isCut = false;
  const server = net.createServer((near) => {
    if (isCut) return void near.on('error', () => {}).resetAndDestroy();
    const far = net.connect(port, hostname);
    for (const [from, to] of [[near, far], [far, near]]) {
      open.add(from);
      from.on('error', () => {});
      from.on('close', () => { open.delete(from); to.destroy(); });
      from.pipe(to);
    }
  });
  const cut = () => {
    isCut = true;
    for (const socket of open) socket.destroy();
  };
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut,
    mend: () => { isCut = false; },
    end: () => { server.close(); cut(); },
  };
}

function connected(page) {
  return state(page, 'it connects', 'connected');
}

function state(page, name, wanted) {
  return until(name, page, (text) => document.querySelector('#state').textContent === text, wanted);
}

function logged(page, name, text) {
  return until(name, page, (wanted) => document.querySelector('#log').textContent.includes(wanted), text);
}

// The list of members is this one, or has so many.
function members(page, name, wanted, count = null) {
  return until(name, page, ([list, length]) => {
    const seen = [...document.querySelectorAll('#members > *')].map((it) => it.textContent);
    return list ? JSON.stringify(seen) === JSON.stringify(list) : seen.length === length;
  }, [wanted, count]);
}

async function rename(page, name) {
  await page.fill('#name', name);
  await page.click('#rename');
}

// What the page's first socket has received.
async function texts(page) {
  return (await page.evaluate(() => socketsOpened[0].received)).map(({ data }) => data);
}

// The counts that the page's first socket has received.
async function counts(page) {
  return (await texts(page)).filter((text) => text.startsWith('tick:')).map((text) => Number(text.slice(5)));
}

// There have been so many.
function counted(page, most) {
  return until(`it counts to ${most}`, page, (n) => socketsOpened[0].received.filter(({ data }) => data.startsWith('tick:')).length >= n, most);
}

// Ends the simulation of a producer, and returns its last value, which the viewer has then.
async function stopped(producer, viewer) {
  await producer.click('#simulate');
  await until('the simulation stops', producer, () => document.querySelector('#simulate').getAttribute('aria-pressed') === 'false');
  const latest = await producer.evaluate(() => socketsOpened[0].sent);
  await until('the last value arrives', viewer, (text) => socketsOpened[0].received.at(-1).data === text, latest);
  return latest;
}

// A stroke of the mouse, from and to in parts of the sheet.
async function stroke(page, from, to) {
  const box = await page.locator('#board').boundingBox();
  const at = ([x, y]) => [box.x + x * box.width, box.y + y * box.height];
  await page.mouse.move(...at(from));
  await page.mouse.down();
  await page.mouse.move(...at(to), { steps: 8 });
  await page.mouse.up();
  await drawn(page, 'a stroke is drawn', to);
}

// A stroke is on its own sheet, to its end there.
function drawn(page, name, [x, y]) {
  return until(name, page, ([atX, atY]) => {
    const plot = document.querySelector('#board');
    const [, , , opacity] = plot.getContext('2d').getImageData(Math.round(plot.width * atX), Math.round(plot.height * atY), 1, 1).data;
    return opacity > 200 && Number(document.querySelector('#sent').textContent) > 20;
  }, [x, y]);
}

// Each of the pages has counted all that the others have drawn, and what a guest of theirs has.
async function shared(name, pages, guest = null) {
  const sent = new Map();
  for (const page of [...pages, guest].filter(Boolean)) sent.set(page, Number(await page.textContent('#sent')));
  const all = [...sent.values()].reduce((sum, it) => sum + it, 0);
  for (const page of pages) {
    await until(name, page, (count) => Number(document.querySelector('#count').textContent) === count, all - sent.get(page));
  }
}

// There is nothing on the sheet.
function blank(page, name) {
  return until(name, page, () => {
    const plot = document.querySelector('#board');
    return plot.getContext('2d').getImageData(0, 0, plot.width, plot.height).data.every((value) => value === 0);
  });
}

// A stroke of a pen; returns what the page was told that it is.
async function penStroke(page, from, to) {
  await page.evaluate(() => {
    globalThis.kinds = new Set();
    document.querySelector('#board').addEventListener('pointermove', ({ pointerType }) => kinds.add(pointerType));
  });
  const box = await page.locator('#board').boundingBox();
  const client = await page.context().newCDPSession(page);
  const pen = (type, part, more) => client.send('Input.dispatchMouseEvent', {
    type, pointerType: 'pen', button: 'left', force: .5,
    x: box.x + (from[0] + (to[0] - from[0]) * part) * box.width, y: box.y + (from[1] + (to[1] - from[1]) * part) * box.height, ...more,
  });
  await pen('mousePressed', 0, { buttons: 1, clickCount: 1 });
  for (let step = 1; step <= 8; step += 1) await pen('mouseMoved', step / 8, { buttons: 1 });
  await pen('mouseReleased', 1, { buttons: 0, clickCount: 1 });
  await drawn(page, 'a stroke of the pen is drawn', to);
  return page.evaluate(() => [...kinds].join(' '));
}

// Whether there is colour at this place of the sheet.
async function inked(page, x, y) {
  return (await pixel(page, x, y))[3] > 200;
}

// Red, green, blue and opacity there.
function pixel(page, x, y) {
  return page.$eval('#board', (plot, [atX, atY]) => (
    [...plot.getContext('2d').getImageData(Math.round(plot.width * atX), Math.round(plot.height * atY), 1, 1).data]
  ), [x, y]);
}

async function phone(showcase, path, name, use) {
  const page = await showcase.open(PHONE, path);
  if (path !== '/lab') await connected(page);
  await use(page);
  await fits(page);
  await showcase.picture(page, `${name}-phone`);
  await close(page);
}

async function close(...pages) {
  for (const page of pages) await page.context().close();
}

const inTurn = [
  ['tick', tick], ['chat', chat], ['board', board], ['sensors', sensors], ['lab', lab], ['comes back', comesBack],
];

module.exports = {
  blank, boardEnds, chat, close, compression, connected, counted, counts, inTurn, inked, logged, members, rename,
  stopped, stroke,
};
