/** What the application's code and its storage do at bad times: throw anything, never end, fill up. */
import { describe, expect, it, vi } from 'vitest';
import type { CursorStore, Place } from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { bench, settle, underFakeTimers } from '../support.js';

const message = { type: 'message', chat_id: null } as const;
const rejections = underFakeTimers();
const real = (ms = 0) => vi.advanceTimersByTimeAsync(ms);

/** A store of places in memory, written as IndexedDB does it: whole, or added. */
function disk(fails: () => unknown = () => undefined) {
  let record: Place | null = null;
  let added: number[] = [];
  const store: CursorStore = {
    load: () => record && { ...record, ids: [...record.ids, ...added] },
    async save(change) {
      const failure = fails();
      if (failure) throw failure;
      if (change.added) return void added.push(...change.added);
      added = [];
      record = { cursor: change.cursor, ids: [...change.ids], idsBefore: [...change.idsBefore] };
    },
    clear() {},
  };
  return {
    store,
    get place() {
      return store.load() as Place | null;
    },
    get added() {
      return added;
    },
  };
}

describe('what is thrown', () => {
  it.each([
    ['an object without a prototype', Object.create(null) as object],
    ['a symbol', Symbol('x')],
    [
      'an error whose text throws',
      {
        toString() {
          throw new Error('text');
        },
      },
    ],
  ])('a handler that throws %s is tried again', async (_, thrown) => {
    const { server, client } = bench();
    let tries = 0;
    client.on('message', () => {
      if (++tries === 1) throw thrown;
    });
    await client.connect();
    server.emit(message);
    await real(2_000);
    expect({ tries, status: client.state.status }).toEqual({ tries: 2, status: 'live' });
    await client.close();
  });

  it('a store that rejects with an object without a prototype does not hurt the stream', async () => {
    let fails = true;
    const { store } = disk(() => fails && Object.create(null));
    const { server, client, ids } = bench({ cursorStore: store });
    await client.connect();
    server.emit(message);
    await real(100);
    fails = false;
    server.emit(message);
    await real(100);
    expect({ ids, status: client.state.status, rejections: rejections.length }).toEqual({
      ids: [1, 2],
      status: 'live',
      rejections: 0,
    });
    await client.close();
  });

  it('an onHandlerError that is async and rejects does not become an unhandled rejection', async () => {
    const { server, client } = bench({
      onHandlerError: (async () => {
        throw new Error('no');
      }) as never,
    });
    client.on('message', () => {
      throw new Error('x');
    });
    await client.connect();
    server.emit(message);
    await real(10);
    vi.useRealTimers();
    await new Promise((r) => setTimeout(r, 10));
    expect(rejections).toEqual([]);
    await client.close();
  });
});

describe('resets', () => {
  it('the stream goes on from the oldest cursor that the handlers of a reset gave', async () => {
    const { server, client } = bench();
    const seen: unknown[] = [];
    let fails = true;
    // The first one reads state late, since its first try fails; the second one has read it before.
    client.on('reset', () => {
      if (fails) {
        fails = false;
        throw new Error('fetch failed');
      }
      return server.cursor;
    });
    let stateOfSecond = 0;
    client.on('reset', () => {
      stateOfSecond = Number(server.cursor!.split('-')[1]);
      return server.cursor;
    });
    client.on('message', ({ id }) => void seen.push(id));
    await client.connect();
    server.reset('truncated');
    await settle();
    expect(stateOfSecond).toBe(0);
    server.emit(message); // 1: after the second's state
    await real(3_000);
    server.emit(message); // 2
    await real(100);
    // The second has neither in its state.
    expect(seen).toEqual([1, 2]);
    await client.close();
  });

  it.each([
    ['an object (the result of a refetch)', { data: [] }],
    ['a text that is no cursor', 'ok'],
    ['a cursor that the server does not have any more', '1-0'],
  ])('a reset handler that gives %s does not make connections without end', async (_, given) => {
    const { server, client } = bench();
    client.on('reset', (() => given) as never);
    await client.connect();
    for (let i = 0; i < 3; i++) server.emit(message);
    server.expire();
    server.reset('truncated');
    await real(1_000);
    expect(server.connects).toBeLessThan(20);
    await client.close();
  });
});

describe('the store', () => {
  it('what is kept in memory only is saved whole by the next run (lost events after a page load)', async () => {
    let isFull = true;
    const it = disk(() => isFull && new Error('quota'));
    const server = new MockRealtimeServer();
    const first = bench({ cursorStore: it.store }, server);
    await first.client.connect();
    server.emit(message);
    await real(100);
    await first.client.close();
    // Committed while away: they come in a replay, without cursors.
    server.emit(message);
    server.emit(message);
    isFull = false; // The user has made room.
    let open!: () => void;
    const gate = new Promise<void>((r) => (open = r));
    first.client.on('message', ({ id }) => (id === 3 ? gate : undefined));
    await first.client.connect();
    await real(200);
    expect(first.ids).toEqual([1, 2, 3]);
    // The page dies here, while 3 is handled.
    const atCrash = it.place;
    open();
    server.emit(message);
    const second = bench({ cursorStore: { load: () => atCrash, save() {}, clear() {} } }, server);
    const resets: unknown[] = [];
    second.client.on('reset', (r) => void resets.push(r.reason));
    await second.client.connect();
    await real(200);
    expect({ atCrash, ids: second.ids, resets }).toMatchObject({ ids: [3, 4] });
    await Promise.all([first.client.close(), second.client.close()]);
  });

  it('a crash repeats at most 100 events, also when a save takes 40 ms', async () => {
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
    client.on('message', () => new Promise((r) => setTimeout(r, 0.5)));
    await client.connect();
    await real(100);
    for (let i = 0; i < 1000; i++) server.emit(message);
    let worst = 0;
    for (let i = 0; i < 1500; i++) {
      await real(1);
      const done = ids.length - 1;
      const at = Number((kept as Place | null)?.cursor?.split('-')[1] ?? 0);
      worst = Math.max(worst, done - at);
    }
    expect(worst).toBeLessThanOrEqual(100);
    await client.close();
  });

  it('close() settles in 5 s when load hangs and storeTimeoutMs is longer', async () => {
    const { client } = bench({
      storeTimeoutMs: 20_000,
      cursorStore: { load: () => new Promise(() => {}), save() {}, clear() {} },
    });
    void client.connect();
    await settle();
    let isDone = false;
    void client.close().then(() => (isDone = true));
    await real(5_000);
    expect(isDone).toBe(true);
    await real(30_000);
  });

  it('close() settles in 5 s after a run that is still ending, with a store that hangs (default settings)', async () => {
    let hangs = false;
    const { server, client } = bench({
      cursorStore: { load: () => (hangs ? new Promise(() => {}) : null), save() {}, clear() {} },
    });
    client.on('message', () => new Promise(() => {}));
    await client.connect();
    server.emit(message);
    await settle();
    void client.close();
    hangs = true;
    void client.connect();
    let isDone = false;
    void client.close().then(() => (isDone = true));
    await real(5_000);
    expect(isDone).toBe(true);
    await real(30_000);
  });
});
