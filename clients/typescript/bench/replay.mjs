// What it costs a page to handle events that it has missed, with each store: rounds in turns, in Chromium with its
// processor throttled.
//
//   node bench/replay.mjs [--events 10000] [--rounds 5] [--throttle 4]
//
// The program is that of HUSHNET_REALTIME_BIN, else cargo's debug build.

import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import pg from 'pg';
import { launch } from '../../console/test/browser.mjs';
import { DEADLINE_MS, startRun } from '../../console/test/service.mjs';

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '10000' },
    rounds: { type: 'string', default: '5' },
    throttle: { type: 'string', default: '4' },
  },
});
const [events, rounds, throttle] = [values.events, values.rounds, values.throttle].map(Number);
const STORES = ['memoryStore', 'localStorageStore', 'indexedDbStore'];

/** Runs in the page: the ms from `connect()` to the last event's handler and to the last save. */
async function replay({ store, userId, since, count, run }) {
  const kept = window[store](`${userId} ${run}`);
  const client = new RealtimeClient({ url: location.origin, userId, cursorStore: kept, locks: null });
  let handled = 0;
  const all = new Promise((done) => client.on('message', () => void (++handled === count && done())));
  const begun = performance.now();
  void client.connect({ since });
  await all;
  await client.close();
  const ms = performance.now() - begun;
  await kept.clear();
  return ms;
}

/** A user with a device and so many messages that were missed, and the cursor of before. */
async function writePast(service) {
  const db = new pg.Client({ connectionString: await service.databaseUrl() });
  await db.connect();
  const one = async (text, params) => (await db.query(text, params)).rows[0].id;
  const user = await one('INSERT INTO users (username) VALUES (gen_random_uuid()::text) RETURNING id');
  const device = await one(
    `INSERT INTO devices (user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub, signed_prekey_sig, one_time_prekeys)
     VALUES ($1, '', '', '', '', '[]') RETURNING id`,
    [user],
  );
  const answer = await fetch(`${service.url}/messages/pending/${device}`);
  const since = answer.headers.get('realtime-cursor');
  await db.query(
    `INSERT INTO messages (logical_msg_id, to_user_id, to_device_id, header, ciphertext)
     SELECT gen_random_uuid()::text, $1, $2, '{}', 'x' FROM generate_series(1, $3)`,
    [user, device, events],
  );
  await db.end();
  return { userId: user, since };
}

const { outputFiles } = await build({
  stdin: {
    contents: "import * as library from './src/index.ts'; Object.assign(window, library);",
    resolveDir: fileURLToPath(new URL('..', import.meta.url)),
  },
  bundle: true,
  minify: true,
  write: false,
  format: 'iife',
});
const service = await startRun();
const browser = await launch();
try {
  const past = await writePast(service);
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  // Any answer of the service is a page of its origin.
  await page.goto(`${service.url}/healthz`);
  await page.addScriptTag({ content: outputFiles[0].text });
  const session = await page.context().newCDPSession(page);
  await session.send('Emulation.setCPUThrottlingRate', { rate: throttle });
  const took = new Map(STORES.map((store) => [store, []]));
  for (let run = 0; run < rounds; run++) {
    for (const store of STORES) {
      took.get(store).push(await page.evaluate(replay, { store, ...past, count: events, run }));
    }
  }
  const least = (store) => Math.min(...took.get(store));
  console.log(`${events} events that were missed, processor throttled ${throttle} times, least of ${rounds} rounds\n`);
  console.log('| store | ms | to memory |\n|---|---:|---:|');
  for (const store of STORES) {
    console.log(`| ${store} | ${least(store).toFixed(0)} | ${(least(store) / least('memoryStore')).toFixed(2)} |`);
  }
} finally {
  await browser.close();
  await service.stop();
}
