/** What comes at an unlucky moment: while a save is made, a page is left, a handler waits. */

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type CursorStore, type Place, memoryStore } from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { bench, settle } from '../support.js';

const message = { type: 'message', chat_id: null } as const;
beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});
const real = (ms = 0) => vi.advanceTimersByTimeAsync(ms);

it('a crash repeats at most 100 events: 99, then 100 while their save takes 40 ms', async () => {
  let kept: Place | null = null;
  const store: CursorStore = {
    load: () => null,
    async save({ cursor, ids, idsBefore }) {
      const place = { cursor, ids: [...ids], idsBefore: [...idsBefore] };
      await new Promise((r) => setTimeout(r, 40));
      kept = place;
    },
    clear() {},
  };
  const { server, client, ids } = bench({ cursorStore: store });
  await client.connect();
  await real(1_000);
  for (let i = 0; i < 99; i++) server.emit(message);
  await real(51); // the save begins
  for (let i = 0; i < 99; i++) server.emit(message);
  await real(1);
  for (let i = 0; i < 20; i++) await settle();
  const at = Number((kept as Place | null)!.cursor!.split('-')[1]);
  expect(ids.length - at).toBeLessThanOrEqual(100);
  const closed = client.close();
  await real(5_000);
  await closed;
});

it('the place in memory does not go back when a save of the run before is given up late', async () => {
  // close() gives up after 4.5 s, the save after 5: in between, the next run has saved a newer place.
  let disk: Place | null = null;
  let slow = false;
  const store: CursorStore = {
    load: () => disk,
    async save({ cursor, ids, idsBefore }) {
      const place = { cursor, ids: [...ids], idsBefore: [...idsBefore] };
      if (slow) {
        slow = false;
        await new Promise((r) => setTimeout(r, 20_000));
        return;
      }
      disk = place;
    },
    clear() {},
  };
  const { server, client, ids } = bench({ cursorStore: store });
  await client.connect();
  await real(100);
  slow = true;
  server.emit(message);
  await real(60); // its save hangs
  void client.close();
  void client.connect();
  await real(4_600); // the new run loads, gets 1 again, handles 2 and 3, saves
  server.emit(message);
  server.emit(message);
  await real(300);
  await real(1_000); // now the old save is given up: memory is its place
  await client.close();
  await client.connect();
  await real(100);
  expect(ids.filter((id) => id !== 1)).toEqual([2, 3]);
  await client.close();
});

it('a page that is left opens no socket, also when a reset handler ends then', async () => {
  const target = new EventTarget();
  vi.stubGlobal('addEventListener', target.addEventListener.bind(target));
  const { server, client } = bench();
  client.on('reset', async () => {
    await new Promise((r) => setTimeout(r, 100));
    return server.cursor;
  });
  await client.connect();
  server.reset('truncated');
  server.emit(message);
  await settle();
  target.dispatchEvent(new Event('pagehide'));
  await real(1_000);
  expect(server.connections.size).toBe(0);
  await client.close();
});

it('a reset handler that gives a cursor does not come back before the time that the server gave', async () => {
  const { server, client } = bench();
  client.on('reset', async () => {
    await new Promise((r) => setTimeout(r, 100));
    return server.cursor;
  });
  await client.connect();
  server.reset('truncated');
  server.emit(message);
  await settle();
  server.close(1013, JSON.stringify({ message: 'busy', retry_after_ms: 20_000 }));
  await real(1_000);
  expect(server.connects).toBe(1);
  await client.close();
});

it('a handler that blocks the stream and is removed lets it go on at once', async () => {
  const { server, client, ids } = bench();
  const off = client.on('message', () => {
    throw new Error('x');
  });
  await client.connect();
  server.emit(message);
  server.emit(message);
  await settle();
  off();
  await real(100);
  expect([ids, client.state.blocked]).toEqual([[1, 2], undefined]);
  await client.close();
});

it('cleared while connected, a memory store is not left with no place', async () => {
  const store = memoryStore();
  const { server, client } = bench({ cursorStore: store });
  await client.connect();
  await real(100);
  store.clear();
  server.broadcast({ type: 'message', user_id: 'u', chat_id: null, id: 500 });
  await real(100);
  expect(await store.load()).not.toBeNull();
  await client.close();
});

it('an id that is repeated under each new cursor, while a handler takes long, is kept once', async () => {
  let saved: readonly number[] = [];
  const store: CursorStore = { load: () => null, save: ({ ids }) => void (saved = ids), clear() {} };
  const { server, client } = bench({ cursorStore: store });
  let finish = () => {};
  client.on('message', () => new Promise<void>((resolve) => (finish = resolve)));
  await client.connect();
  for (const cursor of ['a', ...Array.from({ length: 1_000 }, (_, i) => `b${i}`)]) {
    server.broadcast({ type: 'message', user_id: 'u', chat_id: null, id: 1, cursor });
    await settle();
  }
  finish();
  await real(100);
  expect(saved).toEqual([1]);
  await client.close();
});

it('a store whose load gives undefined has no place yet', async () => {
  const { client, errors, server } = bench({
    cursorStore: { load: () => undefined as never, save() {}, clear() {} },
  });
  const resets: unknown[] = [];
  client.on('reset', ({ reason }) => void resets.push(reason));
  await client.connect();
  await real(10);
  void server;
  expect([errors, resets]).toEqual([[], []]);
  await client.close();
});

describe('frames', () => {
  it('an error frame whose code is a number is no uncaught exception', async () => {
    const { server, client } = bench();
    await client.connect();
    const { connection } = server;
    expect(() =>
      connection.onmessage!({ data: '{"type":"error","code":429,"message":"slow"}' } as never),
    ).not.toThrow();
    await client.close();
  });
});

it('a socket whose close() or send() throws does not hurt the client', async () => {
  const server = new MockRealtimeServer();
  const Base = server.WebSocket as unknown as new (
    url: string,
    protocols: string[],
  ) => { close(code?: number): void };
  class Bad extends Base {
    override close(code?: number): void {
      super.close(code);
      throw new Error('InvalidAccessError');
    }
  }
  const { client, ids } = bench({ WebSocket: Bad as never }, server);
  await client.connect();
  let error: unknown;
  try {
    client.reconnect();
  } catch (e) {
    error = e;
  }
  await real(100);
  server.emit(message);
  await real(100);
  expect({ error, ids }).toEqual({ error: undefined, ids: [1] });
});

it('the abort listener of a handler that closes and connects twice', async () => {
  const { server, client, ids } = bench();
  await client.connect();
  for (let i = 0; i < 30; i++) {
    server.emit(message);
    if (i % 3 === 0) {
      void client.close();
      void client.connect();
    }
    if (i % 4 === 0) await settle();
  }
  await real(10_000);
  expect([...new Set(ids)].length).toBe(30);
  expect(ids.length).toBeLessThan(45);
  await client.close();
  expect(vi.getTimerCount()).toBe(0);
});

it('a reset that two handlers answer: one with nothing, which goes on from the reset, is not skipped ahead', async () => {
  const { server, client } = bench();
  let plain = '';
  client.on('reset', async () => {
    plain = server.cursor!;
  }); // its state is as of now
  client.on('reset', async () => {
    await new Promise((r) => setTimeout(r, 1_000));
    return server.cursor;
  });
  const seen: unknown[] = [];
  client.on('message', ({ id }) => void seen.push(id));
  await client.connect();
  server.reset('truncated');
  await settle();
  expect(plain).toBe('1-0');
  server.emit(message); // 1: not in the state of the first
  await real(2_000);
  server.emit(message);
  await real(100);
  expect(seen).toEqual([1, 2]);
  await client.close();
});

it('a WebSocket constructor that throws is not taken for a proof that failed, and asks for no new token each time', async () => {
  let asked = 0;
  const { client, errors } = bench({
    getToken: () => {
      asked++;
      return `h.${Buffer.from(JSON.stringify({ exp: Date.now() / 1000 + 3_600 })).toString('base64url')}.s`;
    },
    WebSocket: class {
      constructor() {
        throw new DOMException(
          'An insecure WebSocket connection may not be initiated from a page loaded over HTTPS',
          'SecurityError',
        );
      }
    } as never,
  });
  void client.connect();
  await real(20_000);
  expect({ asked, kind: errors[0]?.kind }).not.toMatchObject({ kind: 'proof' });
  void client.close();
  await real(10_000);
});
