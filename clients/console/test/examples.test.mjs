// The examples that are web pages, in a browser, with the real service.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { keepPicture, launch, openPage } from './browser.mjs';
import { launchFirefox, openFirefoxPage } from './firefox.mjs';
import { DEADLINE_MS, repository, startRun, startServe } from './service.mjs';

const CHAT = join(repository, 'examples/chat');
const PLAIN = join(repository, 'examples/browser/index.html');

let browser;
let service;

before(async () => {
  service = await startRun();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await service?.stop();
});

test('chat: what alice types is in bob’s pane, and what bob answers in hers', async () => {
  const chat = await startChat();
  try {
    const page = await openPage(browser, chat.url);
    const pane = (name) => page.getByRole('region', { name });
    const says = async (name, text) => {
      await pane(name).getByRole('textbox').fill(text);
      await pane(name).getByRole('button', { name: 'Send' }).click();
    };
    await pane('alice').getByText('live').waitFor();
    await pane('bob').getByText('live').waitFor();
    await says('alice', 'hello bob');
    await pane('bob').getByText('hello bob').waitFor();
    await says('bob', 'hello alice');
    await pane('alice').getByText('hello alice').waitFor();
    // This message is not sent by the page: only the event can have brought it.
    await service.send('alice', 'bob', 'by another way');
    await pane('bob').getByText('by another way').waitFor();
    assert.equal(await pane('bob').getByText('hello bob').count(), 1);
    assert.deepEqual(page.wrongs, []);
    await keepPicture(page, 'chat');

    await page.goto(`${chat.url}?as=alice`);
    await pane('alice').getByText('hello bob').waitFor();
    assert.equal(await pane('bob').count(), 0);
    await page.context().close();
  } finally {
    await chat.stop();
  }
});

test('chat: in Firefox, what alice types is in bob’s pane, and a page load shows each message once', async () => {
  const chat = await startChat();
  const firefox = await launchFirefox();
  try {
    const page = await openFirefoxPage(firefox, chat.url);
    const pane = (name) => `section[aria-label=${name}]`;
    const shows = (name, text) => page.waitForSelector(`${pane(name)} ::-p-text(${text})`);
    const says = async (name, text) => {
      await page.type(`${pane(name)} input`, text);
      await page.click(`${pane(name)} button`);
    };
    const shown = (text) =>
      page.$$eval(`${pane('bob')} li`, (all, said) => all.filter((li) => li.textContent === said).length, text);
    await shows('alice', 'live');
    await shows('bob', 'live');
    await says('alice', 'is this Firefox?');
    await shows('bob', 'is this Firefox?');
    await says('bob', 'Firefox it is');
    await shows('alice', 'Firefox it is');
    // This message is not sent by the page: only the event can have brought it.
    await service.send('alice', 'bob', 'into Firefox by another way');
    await shows('bob', 'into Firefox by another way');

    await page.reload();
    await shows('bob', 'live');
    await service.send('alice', 'bob', 'after the page load');
    await shows('bob', 'after the page load');
    for (const text of ['is this Firefox?', 'Firefox it is', 'into Firefox by another way', 'after the page load']) {
      assert.equal(await shown(text), 1, text);
    }
    assert.deepEqual(page.wrongs, []);
  } finally {
    await firefox.close();
    await chat.stop();
  }
});

test('chat: two tabs of bob show each message, those that waited and those that come', async () => {
  const chat = await startChat();
  try {
    const people = await (await fetch(`${chat.url}api/people`)).json();
    const [alice, bob] = people.map(({ id }) => id);
    const send = async (text) => {
      const body = JSON.stringify({ from: alice, to: bob, text });
      assert.ok((await fetch(`${chat.url}api/messages`, { method: 'POST', body })).ok);
    };
    // More than one page of what the service has for a device.
    const waiting = Array.from({ length: 2_001 }, (_, n) => `waited ${n}.`);
    for (let from = 0; from < waiting.length; from += 50) await Promise.all(waiting.slice(from, from + 50).map(send));
    const tabs = [await openPage(browser, `${chat.url}?as=bob`), await openPage(browser, `${chat.url}?as=bob`)];
    const shown = (tab, text) => tab.locator('li', { hasText: text });
    for (const tab of tabs) await tab.getByText('live').waitFor();
    for (let n = 0; n < 40; n++) await send(`at once ${n}.`);
    for (const tab of tabs) {
      await shown(tab, 'at once 39.').waitFor();
      await tab.waitForFunction(() => document.querySelectorAll('ol li.theirs').length >= 2_041);
      assert.equal(await shown(tab, /^at once \d+\.$/).count(), 40);
      assert.equal(await shown(tab, /^waited \d+\.$/).count(), 2_001);
      assert.deepEqual(tab.wrongs, []);
    }
    // What bob answers is in both, too.
    await tabs[0].getByRole('textbox').fill('to all of you');
    await tabs[0].getByRole('button', { name: 'Send' }).click();
    for (const tab of tabs) await shown(tab, 'to all of you').waitFor();
    for (const tab of tabs) await tab.context().close();
  } finally {
    await chat.stop();
  }
});

test('browser: the page without a library prints an event', { skip: !existsSync(PLAIN) }, async () => {
  const pages = createServer(async (_, answer) => {
    answer.setHeader('content-type', 'text/html; charset=utf-8');
    answer.end(await readFile(PLAIN));
  });
  await new Promise((resolve) => pages.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${pages.address().port}`;
  const open = await startServe(await service.databaseUrl(), '--allowed-origins', origin);
  const { demo } = await (await fetch(`${service.url}/console/facts`)).json();
  const { id } = demo.find(({ username }) => username === 'bob');
  try {
    const server = open.url.replace('http', 'ws');
    const page = await openPage(browser, `${origin}/index.html?server=${server}&user=${id}`);
    // The page does not get the messages from before it was connected: so messages are sent until it prints one.
    const printed = page.locator('#events').filter({ hasText: '"type":"message"' }).waitFor();
    let isPrinted = false;
    void printed.finally(() => (isPrinted = true)).catch(() => {});
    while (!isPrinted) await service.send('alice', 'bob', 'hello');
    await printed;
    await page.context().close();
  } finally {
    await open.stop();
    pages.closeAllConnections();
    pages.close();
  }
});

test('browser: the page without a library says what it needs', async () => {
  for (const url of [pathToFileURL(PLAIN).href, `${pathToFileURL(PLAIN).href}?user=bob`]) {
    const page = await browser.newPage();
    await page.goto(url);
    const said = await page.locator('#events').textContent();
    for (const part of ['http.server', '--allowed-origins', '?user=']) assert.ok(said.includes(part), said);
    await page.close();
  }
});

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Starts the chat as `npm start` does, on a free port. */
async function startChat() {
  const vite = join(CHAT, 'node_modules/vite/bin/vite.js');
  assert.ok(existsSync(vite), 'the chat is not installed: npm ci in examples/chat');
  const DATABASE_URL = await service.databaseUrl();
  const library = join(CHAT, 'library.mjs');
  // Vite takes 0 for its default, and the next free one for one that is taken.
  const command = `node "$0" && exec node "$1" --port ${await freePort()}`;
  const child = spawn('sh', ['-c', command, library, vite], {
    cwd: CHAT,
    env: { ...process.env, DATABASE_URL, REALTIME_URL: service.url, NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  let said = '';
  const url = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the chat does not start\n${said}`)), DEADLINE_MS);
    const listen = (chunk) => {
      said += chunk;
      const found = /Local:\s+(http:\S+)/.exec(said);
      if (!found) return;
      clearTimeout(timer);
      resolve(found[1]);
    };
    child.stdout.on('data', listen);
    child.stderr.on('data', listen);
    void ended.then(() => reject(new Error(`the chat has ended\n${said}`)));
  });
  return {
    url,
    async stop() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}
