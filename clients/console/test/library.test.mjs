// The TypeScript library in a real page: what only a browser does.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { build } from 'esbuild';
import { launch } from './browser.mjs';
import { DEADLINE_MS, repository, startRun, startServe } from './service.mjs';

/** What the page does: it notes what comes, and tells its server when it was shown again. */
const PAGE = `
  import { RealtimeClient } from './clients/typescript/src/index.ts';
  const asked = new URLSearchParams(location.search);
  const client = new RealtimeClient({ url: asked.get('server'), userId: asked.get('user') });
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

/** Serves the page and another one; `restored` is how often the page has said that it came back as it was. */
async function startPages() {
  const { outputFiles } = await build({
    stdin: { contents: PAGE, resolveDir: repository },
    bundle: true,
    write: false,
    format: 'iife',
  });
  const pages = { restored: 0 };
  const server = createServer((request, answer) => {
    if (request.url === '/restored') pages.restored++;
    answer.setHeader('content-type', 'text/html; charset=utf-8');
    answer.end(request.url.startsWith('/page') ? `<script>${outputFiles[0].text}</script>` : '<p>another');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  pages.origin = `http://127.0.0.1:${server.address().port}`;
  pages.stop = () => {
    server.closeAllConnections();
    server.close();
  };
  return pages;
}

async function until(what, condition) {
  for (const end = performance.now() + DEADLINE_MS; !(await condition()); ) {
    assert.ok(performance.now() < end, `still waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test('a page that is left is kept, and its client comes back at once with what was missed', async () => {
  const pages = await startPages();
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
    await until('the page to say that it was restored', () => pages.restored === 1);
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
