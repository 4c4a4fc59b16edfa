/** Tabs of one store in what seldom happens to them. */

import { beforeEach, describe, expect, it, vi } from 'vitest';
import {
  type ClientOptions,
  type CursorStore,
  type LockManagerLike,
  type Place,
  localStorageStore,
  sharedStore,
} from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { type Bench, FakeLocks, bench, installLocalStorage, underFakeTimers } from '../support.js';

const rejections = underFakeTimers();
const message = { type: 'message', chat_id: null } as const;
const upTo = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1);
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

/** What one posts comes to the others at once, whatever the clock. */
class Channel {
  static all = new Set<Channel>();
  onmessage: ((event: { data: unknown }) => void) | null = null;
  constructor(readonly name: string) {
    Channel.all.add(this);
  }
  postMessage(data: unknown): void {
    const copy = structuredClone(data);
    for (const other of Channel.all) {
      if (other !== this && other.name === this.name) queueMicrotask(() => other.onmessage?.({ data: structuredClone(copy) }));
    }
  }
  close(): void {
    this.onmessage = null;
    Channel.all.delete(this);
  }
}

let items: Map<string, string>;
beforeEach(() => {
  items = installLocalStorage();
  Channel.all.clear();
  vi.stubGlobal('BroadcastChannel', Channel);
});

const kept = (): Place => JSON.parse(items.get('hushnet-realtime:bob')!);
const tabOf = (server: MockRealtimeServer, locks: LockManagerLike | null, options: Partial<ClientOptions> = {}) =>
  bench({ cursorStore: localStorageStore('bob'), locks, handlerTimeoutMs: 3_600_000, ...options }, server);
async function open(count: number, options: Partial<ClientOptions> = {}, server = new MockRealtimeServer()) {
  const origin = new FakeLocks();
  const tabs: (Bench & { readonly view: ReturnType<FakeLocks['tab']> })[] = [];
  for (let i = 0; i < count; i++) {
    const view = origin.tab();
    const tab = { ...tabOf(server, view, options), view };
    void tab.client.connect();
    await pass(100);
    tabs.push(tab);
  }
  const close = async () => {
    const all = Promise.all(tabs.map(({ client }) => client.close()));
    await pass(6_000);
    await all;
    expect(vi.getTimerCount()).toBe(0);
    expect(rejections).toEqual([]);
  };
  return { server, origin, tabs, close };
}

describe('the store keeps the oldest place', () => {
  it('also when another takes over', async () => {
    const { server, tabs, close } = await open(3);
    let finish = (): void => {};
    tabs[2]!.client.on('message', ({ id }) => (id === 3 ? new Promise<void>((resolve) => (finish = resolve)) : undefined));
    for (let i = 0; i < 6; i++) server.emit(message);
    await pass(3_000);
    expect(tabs.map(({ ids }) => ids.length)).toEqual([6, 6, 3]);
    expect(kept().cursor).toBe('1-2');
    void tabs[0]!.client.close();
    await pass(8_000);
    expect(tabs.map(({ client }) => client.state.status)).toEqual(['closed', 'live', 'live']);
    expect(server.connections.size).toBe(1);
    expect(kept().cursor).toBe('1-2');
    finish();
    await pass(3_000);
    expect(kept().cursor).toBe('1-6');
    await close();
  });

  it('also when the one that takes over needs long to connect', async () => {
    const { server, tabs, close } = await open(3);
    let finish = (): void => {};
    tabs[2]!.client.on('message', ({ id }) => (id === 3 ? new Promise<void>((resolve) => (finish = resolve)) : undefined));
    for (let i = 0; i < 6; i++) server.emit(message);
    await pass(3_000);
    expect(kept().cursor).toBe('1-2');
    for (let i = 0; i < 3; i++) server.refuse?.(1006);
    void tabs[0]!.client.close();
    await pass(20_000);
    expect(tabs.map(({ client }) => client.state.status)).toEqual(['closed', 'live', 'live']);
    expect(kept().cursor).toBe('1-2');
    finish();
    await pass(3_000);
    await close();
  });
});

describe('slow tabs', () => {
  it('that all have more waiting than they may do not connect again and again', async () => {
    const { server, tabs, close } = await open(2, { queueFramesMax: 5 });
    let isStuck = true;
    for (const { client } of tabs) client.on('message', async () => {
      while (isStuck) await new Promise((resolve) => setTimeout(resolve, 1_000));
    });
    for (let i = 0; i < 30; i++) server.emit(message);
    await pass(10_000);
    expect(server.connects).toBeLessThan(20);
    isStuck = false;
    await pass(60_000);
    expect(tabs.map(({ ids }) => ids)).toEqual([upTo(30), upTo(30)]);
    await close();
  });
});

describe('nothing is left', () => {
  it('of a client that is closed while it waits for the save of before', async () => {
    const server = new MockRealtimeServer();
    const origin = new FakeLocks();
    let place: Place | null = null;
    const slow: CursorStore = sharedStore('slow', {
      load: () => place,
      async save({ cursor, ids, idsBefore, term, frame }) {
        await new Promise((resolve) => setTimeout(resolve, 1_000));
        place = { cursor, ids, idsBefore, term, frame };
      },
      clear() {},
    });
    const first = tabOf(server, origin.tab(), { cursorStore: slow });
    void first.client.connect();
    await pass(5_000);
    const { client } = tabOf(server, origin.tab(), { cursorStore: slow });
    void client.connect();
    await pass(5_000);
    void first.client.close();
    await pass(100);
    expect(client.state.status).toBe('live');
    server.emit(message);
    await pass(10);
    client.pause();
    await pass(10);
    client.resume();
    await pass(10);
    void client.close();
    await pass(10_000);
    expect(client.state.status).toBe('closed');
    expect(Channel.all.size).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
    const other = tabOf(server, origin.tab(), { cursorStore: slow });
    void other.client.connect();
    await pass(3_000);
    expect(other.client.state.status).toBe('live');
    void other.client.close();
    await pass(10_000);
  });
});

describe('a lock manager', () => {
  it('that throws is one that is not there', async () => {
    const server = new MockRealtimeServer();
    const { client, errors } = tabOf(server, { request: () => { throw new DOMException('no', 'SecurityError'); } });
    void client.connect();
    await pass(1_000);
    expect(client.state.status).toBe('live');
    expect(errors).toMatchObject([{ kind: 'store' }]);
    void client.close();
    await pass(6_000);
    expect(vi.getTimerCount()).toBe(0);
  });
  it('that rejects is one that is not there', async () => {
    const server = new MockRealtimeServer();
    const { client, errors } = tabOf(server, { request: () => Promise.reject(new DOMException('no', 'SecurityError')) });
    void client.connect();
    await pass(1_000);
    expect(client.state.status).toBe('live');
    expect(errors).toMatchObject([{ kind: 'store' }]);
    void client.close();
    await pass(6_000);
    expect(vi.getTimerCount()).toBe(0);
    expect(rejections).toEqual([]);
  });
});

describe('a clock that was set back', () => {
  it.each([['as it was', {}], ['with `since`', { since: '1-1' }]] as const)('does not make saves stale: %s', async (_, how) => {
    vi.setSystemTime(new Date('2030-01-01'));
    const { server, tabs, close } = await open(1);
    tabs[0]!.client.on('reset', () => {
      server.emit(message);
      return '1-2';
    });
    server.emit(message);
    await pass(1_000);
    if (!('since' in how)) {
      server.reset('truncated');
      await pass(3_000);
    }
    await close();
    vi.setSystemTime(new Date('2026-01-01'));
    const late = tabOf(server, new FakeLocks().tab());
    void late.client.connect(how);
    await pass(3_000);
    server.emit(message);
    server.emit(message);
    await pass(3_000);
    expect(late.client.state.status).toBe('live');
    expect(kept().cursor).toBe('since' in how ? '1-3' : '1-4');
    void late.client.close();
    await pass(6_000);
  });
});

it('no save is without a term, by which a late one is known', async () => {
  const { server, tabs, close } = await open(1);
  for (let i = 0; i < 3; i++) server.emit(message);
  await pass(1_000);
  expect(tabs[0]!.ids).toEqual(upTo(3));
  await close();
  const saves = vi.spyOn(items, 'set');
  const since = tabOf(server, new FakeLocks().tab());
  void since.client.connect({ since: '1-1' });
  await pass(1_000);
  expect(since.ids).toEqual([2, 3]);
  expect(kept().cursor).toBe('1-3');
  for (const [, place] of saves.mock.calls) expect(JSON.parse(place)).toHaveProperty('term');
  void since.client.close();
  await pass(6_000);
});

describe('users', () => {
  it('whom only their keys name are not one', async () => {
    const server = new MockRealtimeServer();
    const origin = new FakeLocks();
    const of = (key: string) => tabOf(server, origin.tab(), { userId: undefined, signDevice: (timestamp: number) => ({ key, signature: 'c2ln', timestamp }) } as never);
    const [bob, eve] = [of('Ym9i'), of('ZXZl')];
    void bob.client.connect();
    await pass(100);
    void eve.client.connect();
    await pass(100);
    expect(server.connects).toBe(2);
    void bob.client.close();
    void eve.client.close();
    await pass(6_000);
  });
});
