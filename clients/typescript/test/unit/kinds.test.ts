import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type RealtimeEvent, memoryStore } from '../../src/index.js';
import { RESERVED, USER, bench, settle } from '../support.js';

const DEVICE = '6b0f5c52-2222-4000-8000-000000000002';
const KNOWN = [
  { type: 'message', chat_id: null },
  { type: 'session', sender_device_id: DEVICE, receiver_device_id: DEVICE },
  { type: 'device' },
  {
    type: 'pending_session',
    recipient_device_id: DEVICE,
    sender_device_id: DEVICE,
    pending_session_id: DEVICE,
    created_at: '2026-01-02T03:04:05',
  },
] as const;

describe('kinds', () => {
  it.each(KNOWN)('$type goes to its handler', async (event) => {
    const { server, client, errors } = bench();
    const seen: RealtimeEvent[] = [];
    client.on(event.type, (given: RealtimeEvent) => void seen.push(given));
    await client.connect();
    server.emit(event);
    await settle();
    expect(seen).toEqual([{ ...event, user_id: USER, id: 1, cursor: '1-1' }]);
    expect(errors).toEqual([]);
    await client.close();
  });

  // Names that the library itself uses, or JavaScript, are kinds like any other.
  it.each(['invoice', 'toString', '__proto__', 'constructor', 'mark', 'other', 'event'])(
    '%s, which is not known, goes to its handler and moves the place',
    async (type) => {
      const store = memoryStore();
      const { server, client, errors } = bench({ cursorStore: store });
      const seen: unknown[] = [];
      client.on(type, (event) => void seen.push(event));
      await client.connect();
      server.broadcast(`{"type":"${type}","user_id":"${USER}","amount":7,"id":3,"cursor":"a"}`);
      server.broadcast(`{"type":"${type}","user_id":"${USER}","amount":7,"id":3}`);
      await settle();
      expect(seen).toEqual([{ type, user_id: USER, amount: 7, id: 3, cursor: 'a' }]);
      expect(errors).toEqual([]);
      await client.close();
      expect(await store.load()).toMatchObject({ cursor: 'a', ids: [3] });
    },
  );

  // A database without HushNet's tables may have a table of that name.
  it.each(['session', 'pending_session'])('%s of a table of one\'s own goes to its handler', async (type) => {
    const { server, client, errors } = bench();
    const seen: unknown[] = [];
    client.on(type, (event: RealtimeEvent) => void seen.push(event));
    await client.connect();
    server.broadcast(`{"type":"${type}","op":"insert","user_id":"${USER}","key":{"id":1},"id":3,"cursor":"a"}`);
    await settle();
    expect(seen).toEqual([{ type, op: 'insert', user_id: USER, key: { id: 1 }, id: 3, cursor: 'a' }]);
    expect(errors).toEqual([]);
    await client.close();
  });

  it('comes again after a handler that failed, also where it is not known', async () => {
    const { server, client } = bench({ onHandlerError: 'close' });
    let tries = 0;
    client.on('invoice', () => {
      if (++tries === 1) throw new Error('not yet');
    });
    await client.connect();
    server.emit({ type: 'invoice' });
    await settle();
    expect(client.state).toMatchObject({ status: 'closed', reason: 'handler_failed' });
    await client.connect();
    await settle();
    expect(tries).toBe(2);
    await client.close();
  });

  it.each(RESERVED.filter((name) => name !== 'reset'))('%s is no event', async (type) => {
    const { server, client } = bench();
    const seen: unknown[] = [];
    const loop = client[Symbol.asyncIterator]();
    void loop.next().then(({ value }) => seen.push(value?.type));
    if (type !== 'error') client.on(type, () => void seen.push(type));
    await client.connect();
    const fields = type === 'hello' ? { heartbeat_ms: 1_000 } : {};
    const goaway = type === 'goaway' ? { retry_after_ms: 60_000 } : {};
    server.broadcast({ type, user_id: USER, id: 1, ...fields, ...goaway });
    server.broadcast({ type: 'last', user_id: USER });
    await settle();
    expect(seen).toEqual(['last']);
    void client.close();
    await loop.next();
  });

  it('has the names that docs/protocol.md keeps from kinds', () => {
    const protocol = readFileSync(new URL('../../../../docs/protocol.md', import.meta.url), 'utf8');
    const [, kept] = /no event's `type`:([^.]+?)kept for\s+others\./.exec(protocol)!;
    expect([...kept!.matchAll(/`(\w+)`/g)].map(([, name]) => name)).toEqual(RESERVED);
  });

  it('`state` goes to loops, for handlers of that name are the client\'s', async () => {
    const type = 'state';
    const { server, client } = bench();
    const told: unknown[] = [];
    client.on('state', (state) => void told.push(state));
    const loop = client[Symbol.asyncIterator]();
    const first = loop.next();
    await settle();
    told.length = 0;
    server.emit({ type });
    expect((await first).value).toMatchObject({ type, id: 1 });
    expect(told).toEqual([]);
    void client.close();
    await loop.next();
  });

  it('are all in a loop, in their order', async () => {
    const { server, client } = bench();
    const types: string[] = [];
    client.on('state', ({ status }) => {
      if (status === 'live') for (const event of [...KNOWN, { type: 'invoice' }]) server.emit(event);
    });
    for await (const event of client) {
      types.push(event.type);
      if (types.length === 5) void client.close();
    }
    expect(types).toEqual([...KNOWN.map(({ type }) => type), 'invoice']);
  });

  it('are those that were asked for', async () => {
    const { server, client, ids } = bench({ kinds: ['message', 'invoice'] });
    client.on('device', ({ id }) => void ids.push(id));
    client.on('invoice', ({ id }) => void ids.push(id));
    await client.connect();
    server.emit({ type: 'device' });
    server.emit({ type: 'invoice' });
    server.emit({ type: 'message', chat_id: null });
    await settle();
    expect(ids).toEqual([2, 3]);
    await client.close();
  });
});
