import 'fake-indexeddb/auto';
import { IDBFactory } from 'fake-indexeddb';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  type CursorStore,
  type LockManagerLike,
  type Place,
  indexedDbStore,
  localStorageStore,
  memoryStore,
} from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { FakeLocks, bench, installLocalStorage, until } from '../support.js';

const message = { type: 'message', chat_id: null } as const;

beforeEach(() => {
  installLocalStorage();
  globalThis.indexedDB = new IDBFactory();
});

const stores: [string, (name: string) => CursorStore][] = [
  ['memoryStore', memoryStore],
  ['localStorageStore', localStorageStore],
  ['indexedDbStore', indexedDbStore],
];

describe.each(stores)('%s', (kind, make) => {
  it('gives back what was saved last, and nothing after clear', async () => {
    const store = make('bob');
    expect(await store.load()).toBeNull();
    await store.save({ cursor: 'a', ids: [1, 2], idsBefore: [] });
    await store.save({ cursor: 'b', ids: [3], idsBefore: [1, 2] });
    expect(await store.load()).toEqual({ cursor: 'b', ids: [3], idsBefore: [1, 2] });
    await store.clear();
    expect(await store.load()).toBeNull();
  });

  it('adds ids to what it has', async () => {
    const store = make('bob');
    await store.save({ cursor: 'a', ids: [1], idsBefore: [9] });
    await store.save({ cursor: 'a', ids: [1, 2, 3], idsBefore: [9], added: [2, 3] });
    await store.save({ cursor: 'a', ids: [1, 2, 3, 4], idsBefore: [9], added: [4] });
    expect(await make('alice').load()).toBeNull();
    expect(await store.load()).toEqual({ cursor: 'a', ids: [1, 2, 3, 4], idsBefore: [9] });
    await store.save({ cursor: 'b', ids: [], idsBefore: [1, 2, 3, 4] });
    expect(await store.load()).toEqual({ cursor: 'b', ids: [], idsBefore: [1, 2, 3, 4] });
    await store.save({ cursor: 'b', ids: [5], idsBefore: [1, 2, 3, 4], added: [5] });
    await store.clear();
    expect(await store.load()).toBeNull();
  });

  it('keeps names apart', async () => {
    const [bob, alice] = [make('bob'), make('alice')];
    await bob.save({ cursor: 'a', ids: [], idsBefore: [] });
    expect(await alice.load()).toBeNull();
  });

  it('makes page loads lose and repeat nothing', async () => {
    const shared = make('bob');
    const server = new MockRealtimeServer();
    const all: unknown[] = [];
    for (let page = 0; page < 5; page++) {
      // A page has its own store, but for memory, which lasts no longer than its page.
      const { client, ids } = bench({ cursorStore: kind === 'memoryStore' ? shared : make('bob') }, server);
      await client.connect();
      for (let i = 0; i < 20; i++) server.emit(message);
      await until(() => ids.length >= 10, 'events');
      await client.close();
      all.push(...ids);
    }
    const { client, ids } = bench({ cursorStore: shared }, server);
    await client.connect();
    await until(() => all.length + ids.length >= 100, 'the rest');
    await client.close();
    expect([...all, ...ids]).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
  });
});

it('indexedDbStore opens again what the user has cleared', async () => {
  const store = indexedDbStore('bob');
  await store.save({ cursor: 'a', ids: [], idsBefore: [] });
  await new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase('hushnet-realtime');
    request.onsuccess = resolve;
    request.onerror = reject;
  });
  expect(await store.load()).toBeNull();
  await store.save({ cursor: 'b', ids: [], idsBefore: [] });
  expect(await store.load()).toMatchObject({ cursor: 'b' });
});

describe('a store that fails', () => {
  it('at saving, is reported, and the stream goes on', async () => {
    const full: CursorStore = {
      load: () => null,
      save: () => Promise.reject(new Error('quota')),
      clear() {},
    };
    const { server, client, ids, errors } = bench({ cursorStore: full });
    await client.connect();
    server.emit(message);
    server.emit(message);
    await until(() => ids.length === 2, 'both');
    await client.close();
    expect(errors).toMatchObject([{ kind: 'store', cause: new Error('quota') }]);
    // What could not be saved is in memory.
    server.emit(message);
    await client.connect();
    await until(() => ids.length === 3, 'the one that was missed');
    expect(ids).toEqual([1, 2, 3]);
    await client.close();
  });

  it.each([
    ['rejects', () => Promise.reject(new Error('blocked'))],
    ['is corrupt', () => JSON.parse('{"cursor":7}') as Place],
    ['has no numbers', () => ({ cursor: 'a', ids: ['x'], idsBefore: [] }) as unknown as Place],
    ['never answers', () => new Promise<never>(() => {})],
  ])('at loading (%s) has memory in its place, and the application is reset first', async (_, load) => {
    const saved: unknown[] = [];
    const store = { load, save: ({ cursor }: Place) => void saved.push(cursor), clear() {} };
    const { server, client, ids, errors } = bench({ cursorStore: store, storeTimeoutMs: 20 });
    const resets: unknown[] = [];
    client.on('reset', ({ reason, cursor }) => void resets.push(reason, cursor));
    await client.connect();
    server.emit(message);
    await until(() => ids.length === 1, 'an event');
    expect(client.state).toEqual({ status: 'live', resumed: false });
    expect(resets).toEqual(['storage', '1-0']);
    await client.close();
    expect(errors).toMatchObject([{ kind: 'store' }]);
    // Where it can be written it is good again.
    if (_ !== 'never answers') expect(saved).toContain('1-1');
  });

  it('at loading, resets nobody who gives the cursor of a state', async () => {
    const store = { load: () => Promise.reject(new Error('blocked')), save() {}, clear() {} };
    const { server, client, ids } = bench({ cursorStore: store });
    server.emit(message);
    client.on('reset', () => expect.fail('no reset'));
    await client.connect({ since: '1-0' });
    await until(() => ids.length === 1, 'the event since');
    await client.close();
  });
});

describe('two tabs', () => {
  const tab = (server: MockRealtimeServer, locks: LockManagerLike) =>
    bench({ cursorStore: localStorageStore('bob'), locks }, server);

  it('share one stream: one has it, the other is told', async () => {
    const server = new MockRealtimeServer();
    const locks = new FakeLocks();
    const [a, b] = [tab(server, locks.tab()), tab(server, locks.tab())];
    const relayed: unknown[] = [];
    b.client.on('relayed', ({ id }) => void relayed.push(id));
    await a.client.connect();
    await b.client.connect();
    expect([a.client.state.status, b.client.state.status]).toEqual(['live', 'standby']);
    server.emit(message);
    server.emit(message);
    await until(() => relayed.length === 2, 'what was relayed');
    expect([a.ids, b.ids, relayed]).toEqual([[1, 2], [], [1, 2]]);
    await b.client.close();
    await a.client.close();
  });

  it('take over from each other, and neither repeats nor loses', async () => {
    const server = new MockRealtimeServer();
    const locks = new FakeLocks();
    const all: unknown[] = [];
    let before = tab(server, locks.tab());
    await before.client.connect();
    for (let turn = 0; turn < 10; turn++) {
      const after = tab(server, locks.tab());
      await after.client.connect();
      for (let i = 0; i < 10; i++) server.emit(message);
      await until(() => before.ids.length >= 5, 'some events');
      await before.client.close();
      await until(() => after.client.state.status === 'live', 'the other to take over');
      all.push(...before.ids);
      before = after;
    }
    await until(() => all.length + before.ids.length >= 100, 'the rest');
    await before.client.close();
    expect([...all, ...before.ids]).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
  });

  it('give the stream away only when the handler that runs has ended', async () => {
    const server = new MockRealtimeServer();
    const locks = new FakeLocks();
    const [a, b] = [tab(server, locks.tab()), tab(server, locks.tab())];
    let finish!: () => void;
    a.client.on('message', () => new Promise<void>((resolve) => (finish = resolve)));
    await a.client.connect();
    await b.client.connect();
    server.emit(message);
    await until(() => !!finish, 'the handler');
    const closed = a.client.close();
    expect(a.client.state.status).toBe('closed');
    expect(b.client.state.status).toBe('standby');
    finish();
    await closed;
    server.emit(message);
    await until(() => b.ids.length === 2, 'the other tab');
    // Nobody knows whether the handler has done its work, or was ended by the signal.
    expect(b.ids).toEqual([1, 2]);
    await b.client.close();
  });

  it('take over from one whose handler never ends, when that is closed', async () => {
    const server = new MockRealtimeServer();
    const locks = new FakeLocks();
    const [a, b] = [tab(server, locks.tab()), tab(server, locks.tab())];
    a.client.on('message', () => new Promise(() => {}));
    await a.client.connect();
    await b.client.connect();
    server.emit(message);
    await until(() => a.ids.length === 1, 'the handler');
    await a.client.close();
    await until(() => b.ids.length === 1, 'the other tab');
    await b.client.close();
  });

  it('take over from one that died', async () => {
    const server = new MockRealtimeServer();
    const locks = new FakeLocks();
    const dying = locks.tab();
    const [a, b] = [tab(server, dying), tab(server, locks.tab())];
    await a.client.connect();
    await b.client.connect();
    server.emit(message);
    await until(() => a.ids.length === 1, 'an event');
    // The tab's socket and handlers are gone with it.
    server.close(1000);
    await until(() => a.client.state.status === 'closed', 'its end');
    dying.crash();
    server.emit(message);
    await until(() => b.ids.length === 1, 'the other tab');
    expect(b.ids).toEqual([2]);
    await b.client.close();
  });

  it('a waiting tab can be closed', async () => {
    const server = new MockRealtimeServer();
    const locks = new FakeLocks();
    const [a, b] = [tab(server, locks.tab()), tab(server, locks.tab())];
    await a.client.connect();
    await b.client.connect();
    await b.client.close();
    expect(b.client.state).toEqual({ status: 'closed', reason: 'closed' });
    await a.client.close();
    expect(server.connects).toBe(1);
  });

  it('without Web Locks are two clients, each of which gets every event once', async () => {
    const server = new MockRealtimeServer();
    const [a, b] = [1, 2].map(() => bench({ cursorStore: localStorageStore('bob'), locks: null }, server));
    await Promise.all([a!.client.connect(), b!.client.connect()]);
    for (let i = 0; i < 20; i++) server.emit(message);
    await until(() => a!.ids.length + b!.ids.length >= 40, 'all events');
    const all = Array.from({ length: 20 }, (_, i) => i + 1);
    expect([a!.ids, b!.ids]).toEqual([all, all]);
    await Promise.all([a!.client.close(), b!.client.close()]);
  });
});
