// The TypeScript library in a real page: what only a browser does.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch } from './browser.mjs';
import { startPages, until } from './pages.mjs';
import { DEADLINE_MS, startRun, startServe } from './service.mjs';

/** What the page does: it notes what comes, and tells its server when it was shown again. */
const PAGE = `
  import { RealtimeClient, indexedDbStore } from './clients/typescript/src/index.ts';
  const asked = new URLSearchParams(location.search);
  const client = new RealtimeClient({ url: asked.get('server'), userId: asked.get('user'), cursorStore: indexedDbStore('bob') });
  Object.assign(window, { client, ids: [], states: [] });
  client.on('state', ({ reason, status }) => void states.push(reason ?? status));
  client.on('message', ({ id }) => void ids.push(id));
  addEventListener('pageshow', ({ persisted }) => persisted && fetch('/restored', { method: 'POST' }));
  void client.connect();
`;

let service;
before(async () => {
  service = await startRun();
});
after(() => service?.stop());

test('a page that is left is kept, and its client comes back at once with what was missed', async () => {
  let restored = 0;
  const pages = await startPages(PAGE, () => restored++);
  const open = await startServe(await service.databaseUrl(), '--allowed-origins', pages.origin);
  // Without Playwright's own argument, which forbids a page to be kept.
  const browser = await launch({ ignoreDefaultArgs: ['--disable-back-forward-cache'] });
  try {
    const { demo } = await (await fetch(`${service.url}/console/facts`)).json();
    const { id: user } = demo.find(({ username }) => username === 'bob');
    const page = await browser.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    const isLive = () => page.evaluate(() => client.state.status === 'live');
    await page.goto(`${pages.origin}/page?server=${open.url}&user=${user}`);
    await until('the first connection', isLive);
    await service.send('alice', 'bob', 'before');
    await until('an event', () => page.evaluate(() => ids.length === 1));
    await page.goto(`${pages.origin}/other`);
    await service.send('alice', 'bob', 'meanwhile');
    // Not waited for: a page that is restored is not loaded.
    await page.goBack({ waitUntil: 'commit' });
    await until('the page to say that it was restored', () => restored === 1);
    await until('what was missed', () => page.evaluate(() => ids.length === 2));
    assert.deepEqual(await page.evaluate(() => client.state), { status: 'live', resumed: true });
    // It was the client that closed its socket, not the browser.
    assert.deepEqual(await page.evaluate(() => states), ['connecting', 'live', 'paused', 'live']);
  } finally {
    await browser.close();
    await open.stop();
    pages.stop();
  }
});
