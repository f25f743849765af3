// Drives two nodes of the showcase in a real headless Chromium, with a tab on each.
//
//     node nodes.cjs --url http://127.0.0.1:8000 --url http://127.0.0.1:8001 --chromium /usr/bin/chromium
//         --screenshots DIR
//
// Both servers must be running, with the same `--backplane`, and nobody else on them.  The second is to
// have begun two seconds after the first or later: a counter of its own is then behind.
// `playwright-core` must be found by `require`.
//
// Prints a line for each check, 'ok' or 'FAIL', and last 'N passed, N failed'.  Leaves in DIR what both
// tabs show of each application: {tick,chat,board,sensors}-{one,two}.png.
// Exit status: 0 all passed; 1 a check failed; 2 the browser does not start; 64 wrong arguments.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');

const {
  blank, close, connected, counted, counts, inked, logged, members, rename, stopped, stroke,
} = require('./applications.cjs');
const { DESKTOP, SOON, check, group, launch, open, run, sockets, until } = require('./browser.cjs');

const USAGE = 'nodes.cjs --url URL --url URL --chromium PROGRAM --screenshots DIR';

async function main() {
  const { url: urls, chromium, screenshots } = options();
  fs.mkdirSync(screenshots, { recursive: true });
  const browser = await launch(chromium);
  const nodes = {
    // A tab on each node.
    both: (at) => Promise.all(urls.map(async (url) => {
      const page = await open(browser, DESKTOP, new URL(at, url));
      await connected(page);
      return page;
    })),
    another: (number, at) => open(browser, DESKTOP, new URL(at, urls[number])),
    pictures: async (name, one, two) => {
      for (const [page, which] of [[one, 'one'], [two, 'two']]) {
        await page.screenshot({ path: path.join(screenshots, `${name}-${which}.png`), fullPage: true });
      }
    },
  };
  try {
    for (const [name, checks] of [['tick', tick], ['chat', chat], ['board', board], ['sensors', sensors]]) {
      await group(name, () => checks(nodes));
    }
  } finally {
    await browser.close();
  }
}

async function tick(nodes) {
  const [one, two] = await nodes.both('/tick');
  for (const page of [one, two]) await counted(page, 5);
  for (const seen of [await counts(one), await counts(two)]) {
    const steps = seen.slice(1).map((count, i) => count - seen[i]);
    // A node that the machine has stopped for a while leaps to what the other has counted.
    check('it counts upwards, mostly by 1', steps.every((step) => step > 0) && steps.filter((step) => step === 1).length > 1, seen.join(' '));
  }
  await oneCounter(one, two);
  await one.fill('#message', 'from node one');
  await one.click('#send');
  await two.fill('#message', 'from node two');
  await two.click('#send');
  for (const page of [one, two]) {
    await logged(page, 'both hear node one', 'from node one');
    await logged(page, 'both hear node two', 'from node two');
  }
  await nodes.pictures('tick', one, two);
  await close(one, two);
}

// The same count comes to both nodes at the same moment, sooner or later: either may have been late
// with some, but a counter of its own is behind with all.
async function oneCounter(one, two) {
  const start = Date.now();
  let late = [];
  while (!late.some((it) => Math.abs(it) < 500) && Date.now() - start < SOON) {
    await one.waitForTimeout(500);
    const [here, there] = await Promise.all([one, two].map((page) => page.evaluate(() => (
      socketsOpened[0].received.map(({ data, at }) => [data, at + performance.timeOrigin])))));
    const known = new Map(here);
    late = there.filter(([text]) => text.startsWith('tick:') && known.has(text)).map(([text, at]) => at - known.get(text));
  }
  check('both nodes have one counter', late.some((it) => Math.abs(it) < 500), `late by ${late.map(Math.round).join(' ')} ms`);
}

async function chat(nodes) {
  const [ann, bob] = await nodes.both('/chat');
  await rename(ann, 'Ann');
  await rename(bob, 'Bob');
  for (const page of [ann, bob]) await members(page, 'both see who is there', ['Ann', 'Bob']);
  await ann.fill('#message', 'is anybody on the other node?');
  await ann.press('#message', 'Enter');
  await bob.fill('#message', 'I am');
  await bob.press('#message', 'Enter');
  for (const page of [ann, bob]) {
    await logged(page, 'both hear node one', 'Ann: is anybody on the other node?');
    await logged(page, 'both hear node two', 'Bob: I am');
  }
  await nodes.pictures('chat', ann, bob);
  await bob.click('#leave');
  await logged(ann, 'a goodbye is heard on the other node', 'Bob left the room');
  await members(ann, 'who has left is not there', ['Ann']);
  await close(ann, bob);
}

async function board(nodes) {
  const [one, two] = await nodes.both(`/board/nodes-${Date.now()}`);
  await met(one, two);
  await stroke(one, [.2, .3], [.6, .3]);
  await arrives('the stroke of node one arrives', two, .6, .3);
  await two.click('#colours label:has([aria-label="red"])');
  await stroke(two, [.3, .7], [.8, .6]);
  await arrives('the stroke of node two arrives', one, .8, .6);
  for (const [name, page] of [['node one', one], ['node two', two]]) {
    check(`all of the first is on ${name}`, await inked(page, .2, .3) && await inked(page, .4, .3) && await inked(page, .6, .3));
    check(`and of the second on ${name}`, await inked(page, .3, .7) && await inked(page, .8, .6));
    check(`and nothing else on ${name}`, !(await inked(page, .5, .9)));
  }
  const [here, there] = await Promise.all([one, two].map((page) => page.$eval('#board', (plot) => plot.toDataURL())));
  check('both sheets are the same', here.length > 2_000 && here === there, `${here.length} and ${there.length}`);
  await nodes.pictures('board', one, two);
  await one.click('#clear');
  await blank(two, 'clear clears the other node');
  await close(one, two);
}

// Two nodes that begin a board at the same moment have two, until they know of each other.  Afterwards
// both sheets are blank, and nothing is on its way.
async function met(one, two) {
  for (const [from, to] of [[one, two], [two, one]]) {
    await to.press('#board', ' ');
    await from.evaluate(() => {
      const clear = () => document.querySelector('#clear').click();
      globalThis.clearing = setInterval(clear, 1000);
      clear();
    });
    await blank(to, 'the nodes know of each other');
    await from.evaluate(() => clearInterval(clearing));
    // Behind the last `clear`.
    await from.press('#board', ' ');
    await arrives('nothing is on its way', to, .5, .5);
  }
  await one.click('#clear');
  await blank(two, 'both sheets are blank');
}

// That dot is there, and with it all that its sender has drawn before.
function arrives(name, page, x, y) {
  return until(name, page, ([atX, atY]) => {
    const plot = document.querySelector('#board');
    return plot.getContext('2d').getImageData(Math.round(plot.width * atX), Math.round(plot.height * atY), 1, 1).data[3] > 200;
  }, [x, y]);
}

async function sensors(nodes) {
  const [producer, viewer] = await nodes.both('/sensors');
  await producer.click('#simulate');
  await until('values arrive on the other node', viewer, () => Number(document.querySelector('#count').textContent) >= 8);
  await nodes.pictures('sensors', producer, viewer);
  const latest = await stopped(producer, viewer);
  const late = await nodes.another(1, '/sensors');
  await until('who comes later gets a value at once', late, () => document.querySelector('#count').textContent === '1');
  const [{ received: [got] }] = await sockets(late);
  check('and it is the latest', got.data === latest, `${got.data} and ${latest}`);
  await close(producer, viewer, late);
}

function options() {
  const text = { type: 'string' };
  try {
    const { values } = parseArgs({ options: { url: { ...text, multiple: true }, chromium: text, screenshots: text } });
    for (const name of ['url', 'chromium', 'screenshots']) if (!values[name]) throw new Error(`--${name} is missing`);
    if (values.url.length !== 2) throw new Error('--url is to be there twice');
    return values;
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    process.exit(64);
  }
}

run(main);
