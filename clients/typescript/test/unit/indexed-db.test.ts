/** IndexedDB as it fails: versions, aborts, dead connections. */

import 'fake-indexeddb/auto';
import { IDBFactory, IDBDatabase, IDBObjectStore } from 'fake-indexeddb';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { indexedDbStore, memoryStore } from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { USER, bench, until } from '../support.js';

beforeEach(() => void (globalThis.indexedDB = new IDBFactory()));
afterEach(() => void vi.restoreAllMocks());
const place = (cursor: string, ids: number[] = []) => ({ cursor, ids, idsBefore: [] });

it('opens the database anew when its connection is dead without an event (as in Safari)', async () => {
  const store = indexedDbStore('bob');
  await store.save(place('a'));
  // "Connection to Indexed Database server lost": each transaction() throws, and no `close` comes.
  const first = vi.spyOn(IDBDatabase.prototype, 'transaction').mockImplementationOnce(() => {
    throw new DOMException('Connection to Indexed Database server lost', 'UnknownError');
  });
  const opens = vi.spyOn(indexedDB, 'open');
  await Promise.resolve(store.save(place('b'))).catch(() => {});
  first.mockRestore();
  await store.save(place('c'));
  expect(opens).toHaveBeenCalledTimes(1);
});

it('a save that throws halfway leaves what was there', async () => {
  const store = indexedDbStore('bob');
  await store.save(place('a', [1]));
  await store.save({ ...place('a', [1, 2, 3]), added: [2, 3] });
  // DataCloneError.
  await Promise.resolve(store.save({ ...place('b'), cursor: { data: () => 1 } as never })).catch(() => {});
  expect(await store.load()).toEqual(place('a', [1, 2, 3]));
});

it('a late save of one that has lost the lock is refused', async () => {
  const store = indexedDbStore('bob');
  await store.save({ ...place('b'), term: 8, frame: 1 });
  await store.save({ ...place('a'), term: 7, frame: 2 });
  expect(await store.load()).toEqual({ ...place('b'), term: 8, frame: 1 });
  await store.save({ ...place('b', [3]), added: [3], term: 8, frame: 3 });
  expect(await store.load()).toEqual({ ...place('b', [3]), term: 8, frame: 3 });
});

it('a place that is kept without tabs is not where the tabs were', async () => {
  const store = indexedDbStore('bob');
  await store.save({ ...place('a'), term: 7, frame: 3 });
  await store.save(place('b'));
  expect(await store.load()).toEqual(place('b'));
});

it('quota: an aborted transaction leaves what was there, and the next save is whole again', async () => {
  const server = new MockRealtimeServer();
  const { client, ids, errors } = bench({ cursorStore: indexedDbStore('bob') }, server);
  await client.connect();
  server.emit({ type: 'message', chat_id: null });
  await until(() => ids.length === 1, 'one');
  await new Promise((r) => setTimeout(r, 100));
  const put = vi.spyOn(IDBObjectStore.prototype, 'put').mockImplementation(function (this: IDBObjectStore) {
    throw new DOMException('full', 'QuotaExceededError');
  } as never);
  server.emit({ type: 'message', chat_id: null });
  await until(() => errors.length === 1, 'the error');
  put.mockRestore();
  server.emit({ type: 'message', chat_id: null });
  await new Promise((r) => setTimeout(r, 100));
  await client.close();
  expect(await indexedDbStore('bob').load()).toMatchObject({ cursor: '1-3' });
});

it('versionchange while saves go on: nothing is lost', async () => {
  const store = indexedDbStore('bob');
  for (let i = 0; i < 20; i++) {
    const saving = store.save(place(`c${i}`));
    if (i === 10) {
      const request = indexedDB.open('hushnet-realtime', 1);
      await new Promise((r) => (request.onsuccess = r));
      request.result.close();
    }
    await saving;
  }
  expect(await store.load()).toEqual(place('c19'));
});

it('a database of that name without the object store is mended, or says so once', async () => {
  await new Promise<void>((resolve) => {
    const request = indexedDB.open('hushnet-realtime', 1);
    request.onupgradeneeded = () => {};
    request.onsuccess = () => {
      request.result.close();
      resolve();
    };
  });
  const { client, errors, ids, server } = bench({ cursorStore: indexedDbStore('bob') });
  await client.connect();
  server.emit({ type: 'message', chat_id: null });
  await until(() => ids.length === 1, 'one');
  await client.close();
  expect(errors.length).toBe(1);
});

describe('memoryStore', () => {
  it('takes many ids at once', () => {
    const store = memoryStore();
    store.save(place('a'));
    const added = Array.from({ length: 300_000 }, (_, i) => i);
    expect(() => store.save({ ...place('a', added), added })).not.toThrow();
  });
  it('does not write ids to no place', async () => {
    const store = memoryStore();
    store.save(place('a', [1]));
    store.clear();
    store.save({ ...place('a', [1, 2]), added: [2] });
    expect(await store.load()).toEqual(place('a', [1, 2]));
  });
});
void USER;
