// The console in a browser, served by the real service.

import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { keepPicture, launch, openPage, pictureOfReadme } from './browser.mjs';
import { ask, repository, startRun, startServe } from './service.mjs';

const KEY = 'a secret of 32 bytes or somewhat more';
const JWT = ['--auth', 'jwt', '--jwt-algorithm', 'HS256', '--jwt-key', KEY];

let browser;
let service;
let guarded;
let users;

before(async () => {
  service = await startRun();
  await requireSamePage();
  browser = await launch();
  guarded = await startServe(await service.databaseUrl(), ...JWT);
  const facts = await (await fetch(`${service.url}/console/facts`)).json();
  users = Object.fromEntries(facts.demo.map(({ id, username }) => [username, id]));
});

after(async () => {
  await browser?.close();
  await guarded?.stop();
  await service?.stop();
});

/** Fails at once, and for its reason, where the service was built before the page. */
async function requireSamePage() {
  for (const [path, file] of [
    ['console', 'console.html'],
    ['console/console.js', 'console.js'],
    ['console/console.css', 'console.css'],
  ]) {
    const served = await (await fetch(`${service.url}/${path}`)).text();
    const built = await readFile(join(repository, 'src/http/console', file), 'utf8');
    assert.ok(served === built, `the service has another ${file}: build it again`);
  }
}

const rows = (page) => page.locator('#events tr');
const state = (page, words) => page.getByRole('status').filter({ hasText: words }).waitFor();

async function openConsole(options) {
  return openPage(browser, `${service.url}/console`, options);
}

async function watchBob(options) {
  const page = await openConsole(options);
  await page.getByRole('button', { name: 'bob' }).click();
  await state(page, /^\s*live\b/);
  return page;
}

/** The ids in the list, oldest first. */
async function listedIds(page) {
  const cells = await rows(page).locator('td:nth-child(3)').allTextContents();
  return cells.map(Number).reverse();
}

/**
 * Waits for so many events from the id on, and returns their ids, oldest first. Those before it are not
 * looked at: the cursor of a hello may be a second old, and a resume from there brings what was since.
 */
async function idsFrom(page, first, count) {
  await page.waitForFunction(
    ([first, count]) => {
      const cells = [...document.querySelectorAll('#events td:nth-child(3)')];
      return cells.filter((cell) => Number(cell.textContent) >= first).length >= count;
    },
    [first, count],
  );
  return (await listedIds(page)).filter((id) => id >= first);
}

async function send(page, text) {
  await page.getByLabel('Text', { exact: true }).fill(text);
  await page.getByRole('button', { name: 'Send' }).click();
}

test('a message from the form arrives, and says after how long', async () => {
  const page = await watchBob();
  await send(page, 'hello');
  await page.getByText(/Answered in .+ Arrived here [\d.]+ m?s after its row was written/).waitFor();
  assert.equal(await rows(page).count(), 1);
  const shown = await rows(page).first().textContent();
  assert.match(shown, /message\d+chat [0-9a-f]{8}[\d.]+ m?s$/);
  assert.equal(await page.locator('#count-events').textContent(), '1');
  assert.match(await page.locator('#cursor').textContent(), /\d/);
  // The figures come once a second.
  await page.locator('#chart-latency .value').filter({ hasText: /\d/ }).waitFor();
  assert.match(await page.locator('#chart-connections .value').textContent(), /^\d+$/);
  assert.deepEqual(page.wrongs, []);
  await page.context().close();
});

test('a message written while the link is broken arrives once, after the resume', async () => {
  const page = await watchBob();
  await service.send('alice', 'bob', 'before');
  await rows(page).nth(0).waitFor();
  const [first] = await listedIds(page);
  // The page shows "reconnecting" for a second only: note every state that it shows.
  await page.locator('#state').evaluate((status) => {
    globalThis.shown = [];
    const note = () => globalThis.shown.push(status.textContent);
    new MutationObserver(note).observe(status, { childList: true, characterData: true, subtree: true });
  });
  // The page reconnects after a second. A slow machine may write the message only then: so try again.
  let tries = 0;
  for (let isReplayed = false; !isReplayed; ) {
    tries++;
    assert.ok(tries <= 20, 'no message was written while the link was broken');
    await page.getByRole('button', { name: 'Break the link' }).click();
    await service.send('alice', 'bob', 'meanwhile');
    if (tries === 1) await keepPicture(page, 'broken');
    await page.locator('#count-reconnects').filter({ hasText: new RegExp(`^${tries}$`) }).waitFor();
    await page.getByText('live (resumed)').waitFor();
    const meanwhile = (await idsFrom(page, first, tries + 1)).at(-1);
    const row = rows(page).filter({ has: page.getByRole('cell', { name: String(meanwhile), exact: true }) });
    isReplayed = /replayed/.test(await row.textContent());
  }
  const shown = await page.evaluate(() => globalThis.shown);
  assert.ok(shown.some((text) => /reconnecting\s.+close code 1006/.test(text)), shown.join('\n'));
  // The event of this message comes after all events of the resume.
  await service.send('alice', 'bob', 'after');
  const ids = await idsFrom(page, first, tries + 2);
  assert.equal(ids.length, tries + 2);
  assert.equal(new Set(await listedIds(page)).size, await rows(page).count());
  assert.equal(await page.locator('#count-reconnects').textContent(), String(tries));
  assert.equal(await page.locator('#count-resets').textContent(), '0');
  assert.deepEqual(page.wrongs, []);
  await page.context().close();
});

test('events of every kind are shown, those that the page does not know by the names of their fields', async () => {
  const page = await openConsole();
  const user = users.bob;
  const device = '0b7d6c1e-2c35-4c8a-9d40-4a1f6f6c9b11';
  // The service's own stream, with events of more kinds after its hello.
  await page.routeWebSocket(/\/ws\?/, (socket) => {
    const server = socket.connectToServer();
    server.onMessage((data) => {
      socket.send(data);
      if (JSON.parse(data).type !== 'hello') return;
      for (const event of [
        { type: 'session', user_id: user, sender_device_id: device, receiver_device_id: device },
        { type: 'device', user_id: user },
        {
          type: 'pending_session',
          user_id: user,
          recipient_device_id: device,
          sender_device_id: device,
          pending_session_id: device,
          created_at: '2026-01-02T03:04:05',
        },
        { type: 'invoice', user_id: user, amount: 7, currency: 'EUR' },
        { type: 'state', user_id: user },
        { type: 'typing', user_id: user },
      ]) {
        socket.send(JSON.stringify(event));
      }
    });
  });
  await page.getByRole('button', { name: 'bob' }).click();
  await rows(page).nth(4).waitFor();
  const shown = await rows(page).evaluateAll((list) =>
    list.map((row) => [row.cells[1].textContent, row.cells[3].textContent]),
  );
  assert.deepEqual(shown.reverse(), [
    ['session', 'device 0b7d6c1e to 0b7d6c1e'],
    ['device', 'a device of the user'],
    ['pending_session', 'device 0b7d6c1e asks 0b7d6c1e'],
    ['invoice', 'amount, currency'],
    ['state', 'no more fields'],
  ]);
  assert.deepEqual(page.wrongs, []);
  await page.context().close();
});

test('a reload goes on from where the page was', async () => {
  const page = await watchBob();
  await service.send('alice', 'bob', 'before');
  await rows(page).nth(0).waitFor();
  const [known] = await listedIds(page);
  const address = page.url();
  await page.goto('about:blank');
  await service.send('alice', 'bob', 'meanwhile');
  await page.goto(address);
  await page.getByText('live (resumed)').waitFor();
  const ids = await idsFrom(page, known, 1);
  assert.equal(ids.length, 1);
  assert.ok(!ids.includes(known));
  await page.context().close();
});

test('a malformed user id is refused with a message', async () => {
  const page = await openConsole();
  await page.getByLabel('Or a user id').fill('nobody');
  await page.getByRole('button', { name: 'Connect' }).click();
  const alert = page.getByRole('alert').filter({ hasText: /400 \w+: .+/ });
  await alert.waitFor();
  assert.equal(await page.locator('#state-label').textContent(), 'not connected');
  await page.context().close();
});

test('an invalid token is refused with a message, a valid one is accepted', async () => {
  const page = await openPage(browser, `${guarded.url}/console`);
  assert.ok(await page.locator('#demo').isHidden());
  const token = await ask('token', '--user', users.bob, ...JWT);
  const connect = async (said) => {
    await page.getByLabel('Token').fill(said);
    await page.getByRole('button', { name: 'Connect' }).click();
  };
  const [head, body] = token.split('.');
  await connect(`${head}.${body}.AAAA`);
  await page.getByRole('alert').filter({ hasText: '401 token_signature: ' }).waitFor();
  await keepPicture(page, 'bad-token');
  assert.equal(await page.locator('#state-label').textContent(), 'not connected');

  await connect(token);
  await state(page, /^\s*live\b/);
  assert.ok(await page.getByRole('alert').isHidden());
  await service.send('alice', 'bob', 'to whoever proves it');
  await rows(page).nth(0).waitFor();
  assert.ok(!page.url().includes(token));
  await page.context().close();
});

test('the nodes that share a bus are listed', async () => {
  // No broker is there: the node reads the log for itself.
  const node = await startServe(await service.databaseUrl(), '--bus', 'redis://127.0.0.1:1', '--node-name', 'eu-1');
  try {
    const phone = { viewport: { width: 360, height: 740 } };
    const page = await openPage(browser, `${node.url}/console#user_id=${users.bob}`, phone);
    const cells = page.locator('#nodes tr', { hasText: 'eu-1' }).locator('td');
    await cells.nth(7).filter({ hasText: 'ago' }).waitFor();
    const texts = await cells.allTextContents();
    assert.deepEqual([texts[1], texts[5]], ['reader', 'all']);
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 360, `${width} pixels wide`);
    await keepPicture(page, 'nodes');
    await page.context().close();
  } finally {
    await node.stop();
  }
  // Servers without a bus are no nodes.
  const page = await watchBob();
  await page.locator('#nodes tr').first().waitFor({ state: 'detached' });
  assert.ok(await page.locator('#nodes-section').isHidden());
  await page.context().close();
});

test('the page fits a phone and follows the colour scheme', async () => {
  const phone = { viewport: { width: 360, height: 740 } };
  const page = await watchBob({ ...phone, colorScheme: 'dark' });
  await send(page, 'a text');
  await rows(page).nth(0).waitFor();
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 360, `${width} pixels wide`);
  const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const [red] = /\d+/.exec(ground);
  assert.ok(Number(red) < 64, `the ground is ${ground}`);
  await keepPicture(page, 'phone-dark');
  await page.emulateMedia({ colorScheme: 'light' });
  await keepPicture(page, 'phone-light');
  await page.context().close();
});

test('every control has a name, and the keyboard reaches them', async () => {
  const page = await watchBob();
  const nameless = await page.locator('button, input, select').evaluateAll((controls) =>
    controls.filter((one) => !one.textContent.trim() && !one.labels?.length).map((one) => one.outerHTML),
  );
  assert.deepEqual(nameless, []);
  await page.getByLabel('Text', { exact: true }).focus();
  await page.keyboard.press('Enter');
  await rows(page).nth(0).waitFor();
  await page.getByRole('button', { name: 'Disconnect' }).focus();
  await page.keyboard.press('Enter');
  await state(page, 'closed');
  await page.context().close();
});

test('the picture of the README', { skip: !pictureOfReadme }, async () => {
  const page = await watchBob();
  const others = await openConsole();
  await others.evaluate(() => (globalThis.sockets = []));
  // The charts need a minute of other connections, messages, and a broken link.
  for (let second = 0; second < 110; second++) {
    const wanted = Math.round(6 + 5 * Math.sin(second / 15));
    await others.evaluate(
      ([count, user]) => {
        while (sockets.length > count) sockets.shift().close();
        while (sockets.length < count) sockets.push(new WebSocket(`/ws?user_id=${user}`));
      },
      [wanted, users.alice],
    );
    if (second === 96) await page.getByRole('button', { name: 'Break the link' }).click();
    const count = second > 94 ? 1 : Math.round(1.5 + 1.5 * Math.sin(second / 6));
    for (let sent = 0; sent < count; sent++) {
      await others.evaluate(() =>
        fetch('/console/demo/messages', {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ from: 'alice', to: 'bob', text: 'hello' }),
        }),
      );
    }
    // A second between two points of the lines; this makes a picture and tests nothing.
    await others.waitForTimeout(1_000);
  }
  await send(page, 'hello');
  await page.getByText(/Arrived here/).waitFor();
  await page.locator('#chart-latency .value').filter({ hasText: /\d/ }).waitFor();
  await mkdir(dirname(pictureOfReadme), { recursive: true });
  await page.screenshot({ path: pictureOfReadme });
  await page.context().close();
  await others.context().close();
});
