import { beforeEach, describe, expect, it } from 'vitest';
import { type ClientOptions, type LockManagerLike, localStorageStore } from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { type Bench, FakeLocks, USER, bench, installLocalStorage, until } from '../support.js';

const message = { type: 'message', chat_id: null } as const;
const upTo = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1);

let items: Map<string, string>;
beforeEach(() => {
  items = installLocalStorage();
});

const kept = (): { cursor: string; ids: number[]; term: number; frame: number } =>
  JSON.parse(items.get('hushnet-realtime:bob')!);

const tabOf = (server: MockRealtimeServer, locks: LockManagerLike | null, options: Partial<ClientOptions> = {}) =>
  bench({ cursorStore: localStorageStore('bob'), locks, ...options }, server);

/** Tabs that are connected, one after the other. */
async function open(count: number, options: Partial<ClientOptions> = {}) {
  const server = new MockRealtimeServer();
  const origin = new FakeLocks();
  const tabs: (Bench & { readonly view: ReturnType<FakeLocks['tab']> })[] = [];
  for (let i = 0; i < count; i++) {
    const view = origin.tab();
    const tab = { ...tabOf(server, view, options), view };
    await tab.client.connect();
    tabs.push(tab);
  }
  return { server, origin, tabs, close: () => Promise.all(tabs.map(({ client }) => client.close())) };
}

describe('tabs that share a store', () => {
  it('are each given every event, through one connection', async () => {
    const { server, tabs, close } = await open(3);
    expect(tabs.map(({ client }) => client.state.status)).toEqual(['live', 'live', 'live']);
    for (let i = 0; i < 20; i++) server.emit(message);
    await until(() => tabs.every(({ ids }) => ids.length >= 20), 'all events');
    expect(tabs.map(({ ids }) => ids)).toEqual([upTo(20), upTo(20), upTo(20)]);
    expect(server.connects).toBe(1);
    await close();
  });

  it('save what all of them have handled', async () => {
    const { server, tabs, close } = await open(2);
    let finish = (): void => {};
    tabs[1]!.client.on('message', ({ id }) => (id === 2 ? new Promise<void>((resolve) => (finish = resolve)) : undefined));
    for (let i = 0; i < 4; i++) server.emit(message);
    await until(() => tabs[0]!.ids.length === 4 && kept().cursor !== '1-0', 'the first tab');
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(kept().cursor).toBe('1-1');
    finish();
    await until(() => kept().cursor === '1-4', 'the second tab');
    await close();
  });

  it('go on where the one was that is closed', async () => {
    const { server, tabs, close } = await open(3);
    for (let turn = 0; turn < 3; turn++) {
      for (let i = 0; i < 10; i++) server.emit(message);
      await until(() => tabs[2]!.ids.length >= turn * 10 + 5, 'some events');
      if (turn < 2) await tabs[turn]!.client.close();
    }
    await until(() => tabs[2]!.ids.length >= 30, 'the rest');
    expect(tabs[2]!.ids).toEqual(upTo(30));
    expect(tabs[1]!.ids).toEqual(upTo(tabs[1]!.ids.length));
    expect(server.connects).toBe(3);
    await close();
  });

  it('go on where the one was that died', async () => {
    const { server, tabs, close } = await open(3);
    server.emit(message);
    await until(() => tabs.every(({ ids }) => ids.length === 1), 'an event');
    // Its socket and its handlers are gone with it.
    const [dying] = tabs;
    dying!.view.crash();
    server.close(1000);
    await until(() => dying!.client.state.status === 'closed', 'its end');
    for (let i = 0; i < 5; i++) server.emit(message);
    await until(() => tabs.slice(1).every(({ ids }) => ids.length >= 6), 'the others');
    expect(tabs.slice(1).map(({ ids }) => ids)).toEqual([upTo(6), upTo(6)]);
    expect(server.connects).toBe(2);
    await close();
  });

  it('begin where the store is, and not where the connection is', async () => {
    const { server, origin, tabs, close } = await open(1);
    let finish = (): void => {};
    tabs[0]!.client.on('message', ({ id }) => (id === 3 ? new Promise<void>((resolve) => (finish = resolve)) : undefined));
    for (let i = 0; i < 5; i++) server.emit(message);
    await until(() => kept()?.cursor === '1-2', 'the place');
    const late = tabOf(server, origin.tab());
    await late.client.connect();
    await until(() => late.ids.length === 3, 'what is not handled everywhere');
    expect(late.ids).toEqual([3, 4, 5]);
    expect(server.connects).toBe(1);
    finish();
    await late.client.close();
    await close();
  });

  it('are closed without waiting for another one’s handler', async () => {
    const { server, tabs, close } = await open(2);
    tabs[0]!.client.on('message', () => new Promise(() => {}));
    server.emit(message);
    await until(() => tabs.every(({ ids }) => ids.length === 1), 'the handlers');
    await tabs[1]!.client.close();
    expect(tabs[1]!.client.state).toEqual({ status: 'closed', reason: 'closed' });
    await close();
  });

  it('take no answer to an earlier question', async () => {
    const server = new MockRealtimeServer();
    const origin = new FakeLocks();
    const name = `hushnet-realtime:bob:1:${USER}`;
    // The test is the tab that leads.
    void origin.tab().request(name, {}, () => new Promise(() => {}));
    const leader = new BroadcastChannel(name);
    const asked: { from: string; question: number }[] = [];
    leader.onmessage = ({ data }) => void (data.type === 'join' && asked.push(data));
    const say = (message: object): void => leader.postMessage({ from: 'leader', term: 9, ...message });
    const { client, ids } = tabOf(server, origin.tab());
    const connected = client.connect();
    await until(() => asked.length === 1, 'the first question');
    say({ type: 'here', isVisible: true, saved: 0 });
    await until(() => asked.length === 2, 'the second');
    const answer = { type: 'joined', first: 3, ends: [], cursor: '1-2', state: { status: 'live', resumed: true } };
    const event = { type: 'message', user_id: USER, chat_id: null, id: 7 };
    for (const [i, { from, question }] of asked.entries()) {
      say({ ...answer, to: from, question, frames: [[{ ...event, id: 7 + i }, 90]] });
    }
    await connected;
    await until(() => ids.length > 0, 'an event');
    expect(ids).toEqual([8]);
    await client.close();
    leader.close();
  });

  it('are reset together', async () => {
    const { server, tabs, close } = await open(2);
    const resets: unknown[] = [];
    for (const { client } of tabs) client.on('reset', ({ reason }) => void resets.push(reason));
    server.reset('truncated');
    await until(() => resets.length === 2, 'both');
    server.emit(message);
    await until(() => tabs.every(({ ids }) => ids.length === 1), 'an event');
    expect(server.connects).toBe(1);
    await close();
  });

  it('have connections of their own after a reset whose handler has read state, until they meet', async () => {
    const { server, tabs, close } = await open(2);
    for (let i = 0; i < 3; i++) server.emit(message);
    await until(() => tabs.every(({ ids }) => ids.length === 3), 'the first');
    for (const { client, ids } of tabs) {
      client.on('reset', () => {
        ids.length = 0;
        return '1-2';
      });
    }
    server.reset('truncated');
    await until(() => tabs.every(({ ids }) => ids.length === 1), 'what is after the state');
    server.emit(message);
    await until(() => tabs.every(({ ids }) => ids.length === 2), 'what comes then');
    // After a few cursors that both have passed, one of the connections is not needed any more.
    for (let i = 5; server.connections.size > 1; i++) {
      server.emit(message);
      await until(() => tabs.every(({ ids }) => ids.includes(i)), 'an event');
    }
    server.emit(message);
    const last = server.connects && tabs[0]!.ids.length;
    await until(() => tabs.every(({ ids }) => ids.length > last), 'the last event');
    for (const { ids } of tabs) expect(ids).toEqual(upTo(ids.length + 2).slice(2));
    await close();
  });

  it('`since` is one tab’s alone', async () => {
    const { server, origin, close } = await open(1);
    for (let i = 0; i < 3; i++) server.emit(message);
    await until(() => kept()?.cursor === '1-3', 'the place');
    const other = tabOf(server, origin.tab());
    await other.client.connect({ since: '1-1' });
    await until(() => other.ids.length === 2, 'what was since');
    expect(other.ids).toEqual([2, 3]);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(kept().cursor).toBe('1-3');
    await other.client.close();
    await close();
  });

  it('of which one wants other kinds ask for them as well, and each is given its own', async () => {
    const server = new MockRealtimeServer();
    const origin = new FakeLocks();
    const kindsOf = (): string | null => new URL(server.connection.url).searchParams.get('kinds');
    const [few, more, all] = [['message'], ['message', 'order'], undefined].map((kinds) => {
      const tab = { ...tabOf(server, origin.tab(), kinds && { kinds }), orders: 0 };
      if (kinds?.length !== 1) tab.client.on<string>('order', () => void tab.orders++);
      return tab;
    });
    await few!.client.connect();
    expect(kindsOf()).toBe('message');
    await more!.client.connect();
    await until(() => kindsOf() === 'message,order', 'the other kind');
    server.emit({ type: 'order' });
    await until(() => more!.orders === 1 && kept().cursor === '1-1', 'an order');
    await all!.client.connect();
    await until(() => kindsOf() === null, 'all kinds');
    server.emit({ type: 'order' });
    server.emit(message);
    const tabs = [few!, more!, all!];
    await until(() => tabs.every(({ ids }) => ids.length === 1), 'a message');
    expect(tabs.map(({ orders }) => orders)).toEqual([0, 2, 1]);
    expect(few!.client.unhandledEvents).toBe(0);
    expect(server.connections.size).toBe(1);
    await Promise.all(tabs.map(({ client }) => client.close()));
  });

  it('show that there is no connection also before there was one', async () => {
    const server = new MockRealtimeServer();
    for (let i = 0; i < 20; i++) server.refuse(1006);
    const origin = new FakeLocks();
    const [a, b] = [tabOf(server, origin.tab()), tabOf(server, origin.tab())];
    void a.client.connect();
    await until(() => a.client.state.status === 'reconnecting', 'the first tab');
    void b.client.connect();
    await until(() => b.client.state.status === 'reconnecting', 'the second tab');
    await b.client.close();
    await a.client.close();
  });

  it('show how the connection is', async () => {
    const { server, tabs, close } = await open(2);
    server.close(1006);
    await until(() => tabs.every(({ client }) => client.state.status === 'reconnecting'), 'both');
    await until(() => tabs.every(({ client }) => client.state.status === 'live'), 'both again');
    await close();
  });

  it('of another user get nothing', async () => {
    const server = new MockRealtimeServer();
    const origin = new FakeLocks();
    const bob = tabOf(server, origin.tab());
    const eve = tabOf(server, origin.tab(), { userId: '6b0f5c52-1111-4000-8000-0000000000ee' });
    await bob.client.connect();
    await eve.client.connect();
    expect(server.connects).toBe(2);
    await bob.client.close();
    await eve.client.close();
  });

  it('a second client of one page is reported, and is given its events', async () => {
    const server = new MockRealtimeServer();
    const page = new FakeLocks().tab();
    const [a, b] = [tabOf(server, page), tabOf(server, page)];
    await a.client.connect();
    await b.client.connect();
    expect([a.errors, b.errors]).toMatchObject([[], [{ kind: 'store' }]]);
    server.emit(message);
    await until(() => a.ids.length + b.ids.length === 2, 'both');
    await b.client.close();
    await a.client.close();
    await a.client.connect();
    expect(a.errors).toEqual([]);
    await a.client.close();
  });

  it.each([
    ['`tabs: each`', { tabs: 'each' }],
    ['no Web Locks', { locks: null }],
  ] as const)('with %s have a connection each', async (_, options) => {
    const { server, tabs, close } = await open(2, options);
    for (let i = 0; i < 20; i++) server.emit(message);
    await until(() => tabs.every(({ ids }) => ids.length >= 20), 'all events');
    expect(tabs.map(({ ids }) => ids)).toEqual([upTo(20), upTo(20)]);
    expect(server.connects).toBe(2);
    await close();
  });

  it('a late save of one that has lost the lock is refused', () => {
    const store = localStorageStore('bob');
    const place = { ids: [], idsBefore: [], frame: 1 };
    void store.save({ ...place, cursor: 'b', term: 8 });
    void store.save({ ...place, cursor: 'a', term: 7 });
    expect(kept()).toMatchObject({ cursor: 'b', term: 8 });
    void store.save({ ...place, cursor: 'c', term: 8 });
    expect(kept()).toMatchObject({ cursor: 'c', term: 8 });
  });
});

describe('a leading tab', () => {
  it('that has more waiting than it may lets another lead', async () => {
    const { server, tabs, close } = await open(2, { queueFramesMax: 5 });
    let finish = (): void => {};
    tabs[0]!.client.on('message', ({ id }) => (id === 1 ? new Promise<void>((resolve) => (finish = resolve)) : undefined));
    for (let i = 0; i < 30; i++) server.emit(message);
    await until(() => tabs[1]!.ids.length === 30, 'the other tab');
    expect(tabs[0]!.ids).toEqual([1]);
    finish();
    await until(() => tabs[0]!.ids.length === 30, 'this one');
    expect(tabs.map(({ ids }) => ids)).toEqual([upTo(30), upTo(30)]);
    await close();
  });
});
