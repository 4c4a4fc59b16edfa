/** Listeners that close at their moment, a console that throws, site data that is cleared. */

import 'fake-indexeddb/auto';
import { IDBFactory } from 'fake-indexeddb';
import { afterEach, expect, it, vi } from 'vitest';
import { indexedDbStore } from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { USER, bench, settle, until } from '../support.js';

const message = { type: 'message', chat_id: null } as const;
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});
const real = (ms = 0) => vi.advanceTimersByTimeAsync(ms);

it('sync: close() by a listener that sees the load work again does not connect afterwards', async () => {
  vi.useFakeTimers();
  const { server, client } = bench();
  let fails = true;
  client.sync<number>({
    load: async () => {
      if (fails) {
        fails = false;
        throw new Error('x');
      }
      return { state: 0, cursor: server.cursor };
    },
    apply: (n) => n,
  });
  let was = false;
  client.on('state', ({ blocked }) => {
    if (was && !blocked) void client.close();
    was = !!blocked;
  });
  await real(5_000);
  expect([client.state.status, server.connections.size]).toEqual(['closed', 0]);
});

it.each(['state', 'error'] as const)(
  'a console.error that throws (as jest-fail-on-console) with a listener of %s that throws does not hurt the stream',
  async (name) => {
    vi.useFakeTimers();
    vi.spyOn(console, 'error').mockImplementation(() => {
      throw new Error('console.error is forbidden');
    });
    const { server, client } = bench();
    let done = 0;
    client.on(name, () => {
      throw new Error('listener');
    });
    client.on('message', () => {
      if (++done === 1) throw new Error('handler');
    });
    await client.connect().catch(() => {});
    await real(10);
    server.emit(message);
    await real(10_000);
    expect([client.state.status, done]).toEqual(['live', 2]);
    await client.close();
  },
);

it('the site data is cleared while connected: the next page loses nothing', async () => {
  globalThis.indexedDB = new IDBFactory();
  const server = new MockRealtimeServer();
  const first = bench({ cursorStore: indexedDbStore('bob') }, server);
  await first.client.connect();
  server.emit(message);
  await until(() => first.ids.length === 1, 'one');
  await new Promise((r) => setTimeout(r, 150));
  await new Promise((resolve, reject) => {
    const r = indexedDB.deleteDatabase('hushnet-realtime');
    r.onsuccess = resolve;
    r.onerror = reject;
  });
  // An event around a replay has no cursor.
  server.broadcast({ type: 'message', user_id: USER, chat_id: null, id: 77 });
  await until(() => first.ids.length === 2, 'two');
  await new Promise((r) => setTimeout(r, 150));
  // What is kept now is either a place or, with a reset, none: an added id without a place is neither.
  expect(await indexedDbStore('bob').load()).not.toBeNull();
  await first.client.close();
});

it('sync with connect({since}) and reconnect() while its place is saved: one socket, closed by close()', async () => {
  vi.useFakeTimers();
  const server = new MockRealtimeServer();
  const { client } = bench(
    { cursorStore: { load: () => null, save: () => new Promise((r) => setTimeout(r, 20)), clear() {} } },
    server,
  );
  client.sync<number>({ load: async () => ({ state: 0, cursor: server.cursor }), apply: (n) => n + 1 });
  await settle();
  client.reconnect(); // a button, or the application's own `visibilitychange`
  await real(100);
  const open = server.connections.size;
  await client.close();
  await settle();
  expect([open, server.connections.size]).toEqual([1, 0]);
});
