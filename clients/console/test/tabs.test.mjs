// Tabs of one store in a real browser: each is given every event once, whatever happens to the others.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch } from './browser.mjs';
import { startPages, until } from './pages.mjs';
import { DEADLINE_MS, startRun, startServe } from './service.mjs';

/** What a page does: it notes what comes. */
const PAGE = `
  import { RealtimeClient, indexedDbStore } from './clients/typescript/src/index.ts';
  const asked = new URLSearchParams(location.search);
  const userId = asked.get('user');
  const client = new RealtimeClient({ url: asked.get('server'), userId, cursorStore: indexedDbStore(userId) });
  Object.assign(window, { client, ids: [], isHiddenNow: false });
  // A browser without a screen shows every page.
  Object.defineProperty(document, 'visibilityState', { get: () => (isHiddenNow ? 'hidden' : 'visible') });
  client.on('message', ({ id }) => void ids.push(id));
  void client.connect();
`;

let service;
let pages;
let open;
let user;
before(async () => {
  service = await startRun();
  pages = await startPages(PAGE);
  open = await startServe(await service.databaseUrl(), '--allowed-origins', pages.origin);
  const { demo } = await (await fetch(`${service.url}/console/facts`)).json();
  user = demo.find(({ username }) => username === 'bob').id;
});
after(async () => {
  await open?.stop();
  pages?.stop();
  await service?.stop();
});

/** How many connections the service has. */
async function connections() {
  const metrics = await (await fetch(`${open.url}/metrics`)).text();
  return Number(/^hushnet_connections_open(?:\{[^}]*\})? (\d+)/m.exec(metrics)?.[1]);
}

/** Opens tabs, one after the other: the first one leads. */
async function openTabs(context, count) {
  const tabs = [];
  for (let i = 0; i < count; i++) {
    const page = await context.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    tabs.push(page);
    await page.goto(`${pages.origin}/page?server=${open.url}&user=${user}`);
    await until('a tab', () => page.evaluate(() => client.state.status === 'live'));
  }
  return tabs;
}

const idsOf = (page) => page.evaluate(() => ids);
const has = (page, count) => until(`${count} events`, async () => (await idsOf(page)).length >= count);

test('tabs share a connection, and each is given every event, though one after the other is lost', async () => {
  const browser = await launch();
  try {
    const context = await browser.newContext();
    const [first, second, third] = await openTabs(context, 3);
    let sent = 0;
    const send = async (count) => {
      for (let i = 0; i < count; i++) await service.send('alice', 'bob', `${++sent}`);
    };
    await send(3);
    await Promise.all([first, second, third].map((page) => has(page, 3)));
    assert.equal(await connections(), 1);

    // Frozen, and it leads: another tab takes over, and this one is given what it has missed.
    const devtools = await context.newCDPSession(first);
    await devtools.send('Debugger.enable');
    await devtools.send('Debugger.pause');
    await send(2);
    await Promise.all([second, third].map((page) => has(page, sent)));
    await devtools.send('Debugger.resume');
    await devtools.detach();
    await has(first, sent);

    // Held up by a dialog: each of them, and so the one that leads.
    for (const page of [first, second, third]) {
      const shown = new Promise((resolve) => page.once('dialog', resolve));
      await page.evaluate(() => void setTimeout(() => alert('wait')));
      const dialog = await shown;
      await send(1);
      const others = [first, second, third].filter((other) => other !== page);
      await Promise.all(others.map((other) => has(other, sent)));
      await dialog.accept();
      await has(page, sent);
    }

    // A page load begins where the store is: what was handled everywhere does not come again.
    const before = await idsOf(third);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await third.reload();
    await until('the tab', () => third.evaluate(() => client.state.status === 'live'));
    await send(2);
    await has(third, 2);

    // Crashed.
    await first.goto('chrome://crash').catch(() => {});
    await send(2);
    await has(second, sent);

    // Closed.
    await second.close();
    await send(1);
    await has(third, 5);
    const all = [...before, ...(await idsOf(third))];
    assert.equal(all.length, sent);
    assert.equal(new Set(all).size, sent);
    assert.equal(await connections(), 1);
  } finally {
    await browser.close();
  }
});

test('a tab that the user does not see gives way to one that is seen', async () => {
  const browser = await launch();
  try {
    const [first, second] = await openTabs(await browser.newContext(), 2);
    const leads = (page) =>
      page.evaluate(async () => {
        const { held } = await navigator.locks.query();
        return new Promise((resolve) => {
          // The id of this page is that of a lock that it takes.
          void navigator.locks.request('mine', async () => {
            const mine = (await navigator.locks.query()).held.find(({ name }) => name === 'mine').clientId;
            resolve(held.some(({ clientId }) => clientId === mine));
          });
        });
      });
    assert.deepEqual([await leads(first), await leads(second)], [true, false]);
    await first.evaluate(() => {
      isHiddenNow = true;
    });
    await until('the other tab to lead', () => leads(second));
    await service.send('alice', 'bob', 'hello');
    await Promise.all([first, second].map((page) => has(page, 1)));
    assert.equal(await connections(), 1);
  } finally {
    await browser.close();
  }
});
