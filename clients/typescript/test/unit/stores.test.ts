import 'fake-indexeddb/auto';
import { IDBFactory } from 'fake-indexeddb';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  type CursorStore,
  type Place,
  indexedDbStore,
  localStorageStore,
  memoryStore,
} from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { bench, installLocalStorage, until } from '../support.js';

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
