// Drives two nodes of the showcase in a real headless Chromium, with a tab on each.
//
//     node nodes.cjs --url http://127.0.0.1:8000 --url http://127.0.0.1:8001 --chromium /usr/bin/chromium
//         --screenshots DIR
//
// Both servers must be running, with the same `--backplane`, and nobody else on them.
// `playwright-core` must be found by `require`.
//
// Prints a line for each check, 'ok' or 'FAIL', and last 'N passed, N failed'.  Leaves in DIR what both
// tabs show of each application: {tick,chat,board,sensors}-{one,two}.png.
// Exit status: 0 all passed; 1 a check failed; 2 the browser does not start; 64 wrong arguments.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');

const { close, connected, inked, logged, members, rename, stroke, texts } = require('./applications.cjs');
const { DESKTOP, check, group, launch, open, run, until } = require('./browser.cjs');

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
  const ticks = async (page) => (await texts(page)).filter((text) => text.startsWith('tick:')).map((text) => Number(text.slice(5)));
  for (const page of [one, two]) {
    await until('it counts', page, () => socketsOpened[0].received.filter(({ data }) => data.startsWith('tick:')).length >= 5);
  }
  const [here, there] = [await ticks(one), await ticks(two)];
  for (const seen of [here, there]) {
    check('each count is the one before and 1', seen.every((count, i) => i === 0 || count === seen[i - 1] + 1), seen.join(' '));
  }
  check('both nodes have one counter', Math.abs(here.at(-1) - there.at(-1)) <= 2, `${here} | ${there}`);
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
  await stroke(one, [.2, .3], [.6, .3]);
  await until('the stroke of node one arrives', two, () => Number(document.querySelector('#count').textContent) > 20);
  await two.click('#colours label:has([aria-label="red"])');
  await stroke(two, [.3, .7], [.8, .6]);
  await until('the stroke of node two arrives', one, () => Number(document.querySelector('#count').textContent) > 20);
  for (const [name, page] of [['node one', one], ['node two', two]]) {
    await until(`the first stroke is on ${name}`, page, () => {
      const plot = document.querySelector('#board');
      return plot.getContext('2d').getImageData(Math.round(plot.width * .6), Math.round(plot.height * .3), 1, 1).data[3] > 200;
    });
    check(`all of it, on ${name}`, await inked(page, .2, .3) && await inked(page, .4, .3));
    check(`the second is on ${name}`, await inked(page, .3, .7));
    check(`and nothing else on ${name}`, !(await inked(page, .5, .9)));
  }
  const [here, there] = await Promise.all([one, two].map((page) => page.$eval('#board', (plot) => plot.toDataURL())));
  check('both sheets are the same', here.length > 2_000 && here.length === there.length, `${here.length} and ${there.length}`);
  await nodes.pictures('board', one, two);
  await one.click('#clear');
  await until('clear clears the other node', two, () => {
    const plot = document.querySelector('#board');
    return plot.getContext('2d').getImageData(0, 0, plot.width, plot.height).data.every((value) => value === 0);
  });
  await close(one, two);
}

async function sensors(nodes) {
  const [producer, viewer] = await nodes.both('/sensors');
  await producer.click('#simulate');
  await until('values arrive on the other node', viewer, () => Number(document.querySelector('#count').textContent) >= 8);
  await nodes.pictures('sensors', producer, viewer);
  await producer.click('#simulate');
  await producer.waitForTimeout(500);
  const latest = (await texts(viewer)).at(-1);
  check('both nodes have the latest', latest === (await texts(producer)).at(-1), latest);
  const late = await nodes.another(1, '/sensors');
  await until('who comes later gets a value at once', late, () => document.querySelector('#count').textContent === '1');
  check('and it is the latest', (await texts(late))[0] === latest, `${await texts(late)} and ${latest}`);
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
