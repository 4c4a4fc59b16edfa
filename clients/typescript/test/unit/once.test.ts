import { beforeEach, afterEach, describe, expect, it, vi } from 'vitest';
import { RealtimeClient, type CursorStore, type Place, memoryStore } from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { USER, bench, settle } from '../support.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const message = { type: 'message', chat_id: null } as const;

describe('each event once', () => {
  it('comes in order, is typed, and moves the cursor', async () => {
    const { server, client, ids } = bench();
    await client.connect();
    expect(client.state).toEqual({ status: 'live', resumed: false });
    server.emit(message);
    server.emit({ type: 'device' });
    server.emit(message);
    await settle();
    expect(ids).toEqual([1, 3]);
    await client.close();
    expect(client.state).toEqual({ status: 'closed', reason: 'closed' });
  });

  it('is handed out once when the server repeats it, also one cursor later', async () => {
    const { server, client, ids } = bench();
    await client.connect();
    const say = (id: number, cursor?: string) =>
      server.broadcast({ type: 'message', user_id: USER, chat_id: null, id, ...(cursor && { cursor }) });
    say(7, 'a');
    say(7, 'a');
    say(8, 'b');
    say(7);
    say(7, 'c');
    say(9);
    await settle();
    expect(ids).toEqual([7, 8, 9]);
    await client.close();
  });

  it('is handed out once where events whose ids are in no order come, as transactions commit in none', async () => {
    const { server, client, ids } = bench();
    await client.connect();
    const sent = [9, 3, 8, 2, 7, 9, 1, 3];
    for (const id of sent) server.broadcast({ type: 'message', user_id: USER, chat_id: null, id });
    await settle();
    expect(ids).toEqual([9, 3, 8, 2, 7, 1]);
    await client.close();
  });

  it('keeps a repeated id under the present cursor', async () => {
    const { server, client, ids } = bench();
    await client.connect();
    const say = (id: number, cursor: string) =>
      server.broadcast({ type: 'message', user_id: USER, chat_id: null, id, cursor });
    say(1, 'a');
    say(1, 'b');
    say(2, 'c');
    say(1, 'c');
    await settle();
    expect(ids).toEqual([1, 2]);
    await client.close();
  });

  it('comes back with its cursor and gets what it has missed', async () => {
    const { server, client, ids } = bench();
    await client.connect();
    server.emit(message);
    await settle();
    server.close(1006);
    await settle();
    server.emit(message);
    server.emit(message);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state).toEqual({ status: 'live', resumed: true });
    expect(ids).toEqual([1, 2, 3]);
    await client.close();
  });

  it('goes on from the store after a page load', async () => {
    const store = memoryStore();
    const first = bench({ cursorStore: store });
    await first.client.connect();
    first.server.emit(message);
    await settle();
    await first.client.close();
    first.server.emit(message);
    const second = bench({ cursorStore: store }, first.server);
    await second.client.connect();
    await settle();
    expect([first.ids, second.ids]).toEqual([[1], [2]]);
    await second.client.close();
  });

  it('waits for an async handler before the next event, and moves the cursor after it', async () => {
    const saved: (string | null)[] = [];
    const store: CursorStore = {
      load: () => null,
      save: (place) => void saved.push(place.cursor),
      clear() {},
    };
    const { server, client } = bench({ cursorStore: store });
    const log: string[] = [];
    client.on('message', async ({ id }) => {
      log.push(`begin ${id} ${saved.at(-1)}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
      log.push(`end ${id} ${saved.at(-1)}`);
    });
    await client.connect();
    server.emit(message);
    server.emit(message);
    await vi.advanceTimersByTimeAsync(300);
    expect(log).toEqual(['begin 1 1-0', 'end 1 1-0', 'begin 2 1-0', 'end 2 1-1']);
    expect(saved).toEqual(['1-0', '1-1', '1-2']);
    await client.close();
  });

  it('repeats, and does not lose, what a crash leaves between the handler and the store', async () => {
    let disk: Place | null = null;
    let saves = 0;
    const store: CursorStore = {
      load: () => disk,
      save({ cursor, ids, idsBefore }) {
        saves++;
        disk = { cursor, ids, idsBefore };
      },
      clear() {},
    };
    const first = bench({ cursorStore: store });
    await first.client.connect();
    for (let i = 0; i < 250; i++) first.server.emit(message);
    await settle();
    for (let i = 0; i < 50 && first.ids.length < 250; i++) await settle();
    // The page dies here: a slice of at most 100 was not saved yet.
    const atCrash = disk;
    // The first place is saved at once.
    expect([first.ids.length, saves]).toEqual([250, 3]);
    const second = bench({ cursorStore: { load: () => atCrash, save() {}, clear() {} } }, first.server);
    await second.client.connect();
    for (let i = 0; i < 50 && second.ids.at(-1) !== 250; i++) await settle();
    expect(second.ids).toEqual(Array.from({ length: 50 }, (_, i) => 201 + i));
    await Promise.all([first.client.close(), second.client.close()]);
  });

  it('saves 50 ms after the first event of a slice, and when the client is closed', async () => {
    const saved: (string | null)[] = [];
    const { server, client } = bench({ cursorStore: { load: () => null, save: ({ cursor }) => void saved.push(cursor), clear() {} } });
    await client.connect();
    await vi.advanceTimersByTimeAsync(50);
    saved.length = 0;
    server.emit(message);
    server.emit(message);
    await vi.advanceTimersByTimeAsync(49);
    expect(saved).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(saved).toEqual(['1-2']);
    server.emit(message);
    await settle();
    await client.close();
    expect(saved).toEqual(['1-2', '1-3']);
  });

  it('closes when a handler fails, if it is told to, and hands the event out again after connect()', async () => {
    const { server, client, errors } = bench({ onHandlerError: 'close' });
    let fails = true;
    const seen: unknown[] = [];
    client.on('message', ({ id }) => {
      seen.push(id);
      if (fails) throw new Error('no room');
    });
    await client.connect();
    server.emit(message);
    await settle();
    expect(client.state).toMatchObject({ status: 'closed', reason: 'handler_failed' });
    expect(errors[0]).toMatchObject({ kind: 'handler', cause: new Error('no room') });
    fails = false;
    await client.connect();
    await settle();
    expect(seen).toEqual([1, 1]);
    await client.close();
  });

  it('goes on after a failed handler if it is told to', async () => {
    const { server, client, ids, errors } = bench({ onHandlerError: 'skip' });
    client.on('message', ({ id }) => {
      if (id === 1) throw new Error('no room');
    });
    await client.connect();
    server.emit(message);
    server.emit(message);
    await settle();
    expect(ids).toEqual([1, 2]);
    expect(errors).toHaveLength(1);
    await client.close();
  });

  it.each([
    ['frames', { queueFramesMax: 10 }, {}, 100],
    ['characters', {}, { row: 'x'.repeat(2 ** 23) }, 10],
  ])('bounds the queue by %s: closes the socket, drains, and comes back without loss', async (_, options, more, count) => {
    const { server, client, ids } = bench(options);
    let open!: () => void;
    const gate = new Promise<void>((resolve) => (open = resolve));
    client.on('message', () => gate);
    const reasons: unknown[] = [];
    client.on('state', (state) => {
      if (state.status === 'reconnecting') reasons.push(state.reason);
    });
    await client.connect();
    for (let i = 0; i < count; i++) server.emit({ ...message, ...more });
    await settle();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(reasons).toEqual(['overflow']);
    expect(server.connections.size).toBe(0);
    open();
    for (let i = 0; i < 40; i++) await vi.advanceTimersByTimeAsync(1_000);
    expect(ids).toEqual(Array.from({ length: count }, (_, i) => i + 1));
    await client.close();
  });

  it('takes events without ids, and says itself that some were missed', async () => {
    const server = new MockRealtimeServer({ log: false });
    const { client, ids } = bench({}, server);
    const resets: unknown[] = [];
    client.on('reset', (reset) => void resets.push(reset));
    await client.connect();
    server.emit(message);
    server.emit(message);
    await settle();
    expect(ids).toEqual([undefined, undefined]);
    server.close(1006);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(resets).toEqual([{ type: 'reset', reason: 'no_log', cursor: null }]);
    await client.close();
  });
});

describe('reset', () => {
  it('waits for the handler, then goes on from its own cursor', async () => {
    const { server, client, ids } = bench();
    let fetched!: () => void;
    client.on('reset', () => new Promise<void>((resolve) => (fetched = resolve)));
    await client.connect();
    server.emit(message);
    await settle();
    server.close(1006);
    await settle();
    server.emit(message);
    server.expire();
    await vi.advanceTimersByTimeAsync(1_000);
    server.emit(message);
    await settle();
    expect(ids).toEqual([1]);
    fetched();
    await settle();
    expect(ids).toEqual([1, 3]);
    await client.close();
  });

  it('goes on from the cursor that the handler gives', async () => {
    const { server, client, ids } = bench();
    client.on('reset', () => '1-3');
    await client.connect();
    for (let i = 0; i < 5; i++) server.emit(message);
    await settle();
    ids.length = 0;
    server.reset('retention');
    await vi.advanceTimersByTimeAsync(10);
    expect(server.connection.query.get('since')).toBe('1-3');
    expect(ids).toEqual([4, 5]);
    await client.close();
  });

  it('is not forgotten by a crash in its handler', async () => {
    const store = memoryStore();
    store.save({ cursor: '1-0', ids: [], idsBefore: [] });
    const server = new MockRealtimeServer();
    server.emit(message);
    server.expire();
    const first = bench({ cursorStore: store }, server);
    first.client.on('reset', () => {
      throw new Error('offline');
    });
    await first.client.connect();
    await settle();
    expect(first.client.state).toMatchObject({ blocked: { event: { reason: 'retention' }, attempt: 1 } });
    await first.client.close();
    const second = bench({ cursorStore: store }, server);
    const resets: unknown[] = [];
    second.client.on('reset', ({ reason }) => void resets.push(reason));
    await second.client.connect();
    await settle();
    expect(resets).toEqual(['retention']);
    await second.client.close();
  });

  it('forgets ids of another history', async () => {
    const { server, client, ids } = bench();
    await client.connect();
    server.emit(message);
    await settle();
    server.broadcast({ type: 'reset', reason: 'history', cursor: '9-0' });
    server.broadcast({ type: 'message', user_id: USER, chat_id: null, id: 1, cursor: '9-1' });
    await settle();
    expect(ids).toEqual([1, 1]);
    await client.close();
  });
});

describe('for await', () => {
  const loop = (server: MockRealtimeServer, store = memoryStore()) =>
    new RealtimeClient({ url: 'ws://mock', userId: USER, WebSocket: server.WebSocket, cursorStore: store });

  it('handles an event by asking for the next, and ends after close()', async () => {
    const server = new MockRealtimeServer();
    const store = memoryStore();
    const client = loop(server, store);
    const ids: unknown[] = [];
    client.on('state', ({ status }) => {
      if (status === 'live') for (let i = 0; i < 5; i++) server.emit(message);
    });
    for await (const event of client) {
      ids.push(event.id);
      if (event.id === 3) void client.close();
    }
    expect(ids).toEqual([1, 2, 3]);
    await client.close();
    expect((await store.load())?.cursor).toBe('1-3');
  });

  it('gives the event of a loop that was left to the next one', async () => {
    const server = new MockRealtimeServer();
    const store = memoryStore();
    const first = loop(server, store);
    first.on('state', ({ status }) => void (status === 'live' && server.emit(message)));
    for await (const event of first) if (event.id === 1) break;
    expect(first.state).toMatchObject({ status: 'closed', reason: 'closed' });
    await first.close();
    for await (const event of loop(server, store)) {
      expect(event.id).toBe(1);
      break;
    }
  });

  it('throws when the client is closed for good', async () => {
    const server = new MockRealtimeServer();
    server.refuse(4003);
    const run = async () => {
      for await (const event of loop(server)) expect(event).toBeUndefined();
    };
    await expect(run()).rejects.toMatchObject({ kind: 'closed', code: 'revoked' });
  });
});
