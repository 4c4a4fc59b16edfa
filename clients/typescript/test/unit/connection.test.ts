import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { backoffMs } from '../../src/backoff.js';
import { judge } from '../../src/close-codes.js';
import { RealtimeClient } from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { RESERVED, USER, bench, settle, token } from '../support.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const message = { type: 'message', chat_id: null } as const;

describe('backoff', () => {
  it('doubles from 1 s to 30 s', () => {
    const waits = [1, 2, 3, 4, 5, 6, 7, 2_000].map((failures) => backoffMs(failures, () => 1));
    expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  });

  it('takes a share at random, from nothing to all', () => {
    const shares = Array.from({ length: 2_000 }, () => backoffMs(3) / 4_000);
    expect(Math.min(...shares)).toBeGreaterThanOrEqual(0);
    expect(Math.min(...shares)).toBeLessThan(0.05);
    expect(Math.max(...shares)).toBeLessThan(1);
    expect(Math.max(...shares)).toBeGreaterThan(0.95);
  });

  it('grows with each failure, shows in the state, and begins anew after a hello', async () => {
    const { server, client } = bench();
    const waits: number[] = [];
    client.on('state', (state) => {
      if (state.status === 'reconnecting') waits.push(state.retryInMs);
    });
    for (let i = 0; i < 3; i++) server.refuse(1013);
    void client.connect();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(client.state.status).toBe('live');
    server.close(1006);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(waits).toEqual([1_000, 2_000, 4_000, 1_000]);
    await client.close();
  });
});

it('says what may be wrong where no connection is accepted, once', async () => {
  const { server, client, errors } = bench();
  for (let i = 0; i < 6; i++) server.refuse(1006);
  void client.connect();
  await vi.advanceTimersByTimeAsync(90_000);
  expect(client.state.status).toBe('live');
  expect(errors).toMatchObject([{ kind: 'socket', message: /--allowed-origins/ }]);
  for (let i = 0; i < 6; i++) server.refuse(1006);
  server.close(1006);
  await vi.advanceTimersByTimeAsync(100_000);
  expect([client.state.status, errors.length]).toEqual(['live', 1]);
  await client.close();
});

describe('the reason of a close', () => {
  it.each([
    ['{"code":"rate_limited","message":"too many","retry_after_ms":5000}', 5_000],
    ['{"code":"slow_consumer","message":"nothing was read"}', 10],
    ['{"retry_after_ms":"soon"}', 10],
    ['rate_limited', 10],
    ['null', 10],
    ['', 10],
  ])('%s is waited for %i ms', async (reason, retryInMs) => {
    const { server, client } = bench({ random: () => 0.01 });
    await client.connect();
    server.close(4029, reason);
    await settle();
    expect(client.state).toMatchObject({ status: 'reconnecting', retryInMs });
    await client.close();
  });
});

describe('close codes', () => {
  const table = readFileSync(new URL('../../../../docs/protocol.md', import.meta.url), 'utf8').matchAll(
    /^\| (\d{4}) \| `\w+` \| (yes|no) \|$/gm,
  );
  const rows = [...table].map(([, code, back]) => [Number(code), back === 'yes'] as const);

  it('has a table to be compared with', () => expect(rows.length).toBeGreaterThan(10));

  it.each(rows)('%i comes back: %s, as docs/protocol.md says', async (code, comesBack) => {
    const { server, client } = bench();
    await client.connect();
    server.close(code);
    await settle();
    expect(client.state.status).toBe(comesBack ? 'reconnecting' : 'closed');
    expect(client.state).toMatchObject({ code });
    await client.close();
  });

  it.each([1001, 1005, 1006, 1011, 4999])('%i, of no table, comes back', (code) => {
    expect(judge(code, 0, false)).toBe('return');
  });

  it('names the reasons', () => {
    expect(judge(4001, 1, false)).toBe('unauthenticated');
    expect(judge(4003, 0, true)).toBe('revoked');
    expect(judge(1009, 0, true)).toBe('refused');
  });
});

describe('goaway', () => {
  it('goes on reading, and comes back at its time', async () => {
    const { server, client, ids } = bench();
    await client.connect();
    server.goaway(7_000);
    await settle();
    server.emit(message);
    await vi.advanceTimersByTimeAsync(6_900);
    expect(ids).toEqual([1]);
    expect(server.connects).toBe(1);
    await vi.advanceTimersByTimeAsync(200);
    expect(server.connects).toBe(2);
    await client.close();
  });

  it('waits for its time when the connection is closed before', async () => {
    const { server, client } = bench();
    await client.connect();
    server.goaway(20_000);
    await settle();
    server.close(1012);
    await vi.advanceTimersByTimeAsync(19_900);
    expect(server.connects).toBe(1);
    await vi.advanceTimersByTimeAsync(200);
    expect(client.state).toEqual({ status: 'live', resumed: true });
    await client.close();
  });
});

describe('frames', () => {
  it.each([
    'no json',
    'null',
    '7',
    '{}',
    '{"type":"message"}',
    '{"type":"message","user_id":"u","id":"7"}',
    '{"type":"session","user_id":"u","sender_device_id":"d"}',
    '{"type":"pending_session","user_id":"u","recipient_device_id":"d","sender_device_id":"d"}',
    '{"type":"invoice","user_id":"u","id":"7"}',
    '{"type":"message","user_id":"u","id":1.5}',
    '{"type":"cursor","cursor":7}',
    '{"type":"reset"}',
    '{"type":"goaway","retry_after_ms":-1}',
  ])('%s is reported and the stream goes on', async (text) => {
    const { server, client, ids, errors } = bench();
    await client.connect();
    server.broadcast(text);
    server.emit(message);
    await settle();
    expect(errors.map(({ kind }) => kind)).toEqual(['frame']);
    expect(ids).toEqual([1]);
    await client.close();
  });

  it.each(['{"type":"notice"}', '{"type":"toString"}', '{"type":"pong"}', '{"type":"invoice","user_id":7}'])(
    '%s is of no interest',
    async (text) => {
      const { server, client, errors } = bench();
      await client.connect();
      server.broadcast(text);
      await settle();
      expect(errors).toEqual([]);
      expect(client.state.status).toBe('live');
      await client.close();
    },
  );

  it('reports what the server calls an error', async () => {
    const { server, client, errors } = bench();
    await client.connect();
    server.broadcast({ type: 'error', code: 'unknown_type', message: 'what?' });
    await settle();
    expect(errors[0]).toMatchObject({ kind: 'server', code: 'unknown_type', message: 'what?' });
    await client.close();
  });
});

describe('proof', () => {
  it('sends the token as a subprotocol and replaces it before it expires', async () => {
    const asked: string[] = [];
    const getToken = () => {
      asked.push(token(600, `${asked.length}`));
      return asked.at(-1)!;
    };
    const { server, client } = bench({ getToken });
    await client.connect();
    expect(server.connection.protocols).toEqual(['hushnet.v1', `hushnet.token.${asked[0]}`]);
    await vi.advanceTimersByTimeAsync(538_000);
    expect(asked).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(3_000);
    const sent = server.connection.received.filter((f) => (f as { type: string }).type === 'auth');
    expect(sent).toEqual([{ type: 'auth', token: asked[1] }]);
    // The server's clock counts: it says less, so the next one comes sooner.
    server.broadcast({ type: 'authenticated', expires_in_ms: 80_000 });
    await vi.advanceTimersByTimeAsync(61_000);
    expect(asked).toHaveLength(3);
    await client.close();
  });

  it('keeps a good token for the next connection', async () => {
    const getToken = vi.fn(() => token(600));
    const { server, client } = bench({ getToken });
    await client.connect();
    server.close(1006);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state.status).toBe('live');
    expect(getToken).toHaveBeenCalledTimes(1);
    await client.close();
  });

  it('asks for another after 4004', async () => {
    const getToken = vi.fn(() => token(600));
    const { server, client } = bench({ getToken });
    await client.connect();
    server.close(4004);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state.status).toBe('live');
    expect(getToken).toHaveBeenCalledTimes(2);
    await client.close();
  });

  it('asks three times at 4001, then gives up', async () => {
    const getToken = vi.fn(() => token(600));
    const { server, client } = bench({ getToken });
    for (let i = 0; i < 9; i++) server.refuse(4001);
    void client.connect();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(client.state).toMatchObject({ status: 'closed', reason: 'unauthenticated', code: 4001 });
    expect(getToken).toHaveBeenCalledTimes(3);
  });

  it('comes back when getToken fails', async () => {
    let fails = true;
    const getToken = () => {
      if (fails) throw new Error('offline');
      return token(600);
    };
    const { client, errors } = bench({ getToken });
    void client.connect();
    await settle();
    expect(client.state).toMatchObject({ status: 'reconnecting', reason: 'proof' });
    expect(errors[0]).toMatchObject({ kind: 'proof', cause: new Error('offline') });
    fails = false;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state.status).toBe('live');
    await client.close();
  });

  it('signs the present time after the clock was wrong for a while', async () => {
    const times: number[] = [];
    const signDevice = (timestamp: number) => {
      times.push(timestamp);
      return { key: 'k', signature: 's', timestamp };
    };
    const { client } = bench({ signDevice });
    const now = Date.now();
    vi.setSystemTime(now + 3_600_000);
    await client.connect();
    vi.setSystemTime(now);
    await client.reconnect();
    expect(times).toEqual([Math.floor(now / 1000) + 3_600, Math.floor(now / 1000)]);
    await client.close();
  });

  it('signs a time for each connection, and none twice', async () => {
    const times: number[] = [];
    const signDevice = (timestamp: number) => {
      times.push(timestamp);
      return { key: 'a+/b==', signature: '/+==', timestamp };
    };
    const { server, client } = bench({ signDevice, random: () => 0 });
    await client.connect();
    expect(server.connection.protocols).toEqual(['hushnet.v1', `hushnet.device.a-_b._-.${times[0]}`]);
    server.close(1006);
    await vi.advanceTimersByTimeAsync(1);
    expect(client.state.status).toBe('live');
    expect(times).toEqual([times[0], times[0]! + 1]);
    await client.close();
  });
});

describe('settings', () => {
  it('says what is missing', () => {
    const { WebSocket } = new MockRealtimeServer();
    expect(() => new RealtimeClient({ url: 'ws://h', WebSocket })).toThrow(/userId, getToken/);
    expect(() => new RealtimeClient({ url: 'ftp://h', userId: USER, WebSocket })).toThrow(/url/);
  });

  it('asks for the kinds, if there are some', async () => {
    const { server, client } = bench({ kinds: ['message', 'a b&c', 'invoice'] });
    await client.connect();
    expect(server.connection.query.get('kinds')).toBe('message,a b&c,invoice');
    expect(server.connection.url).toContain('kinds=message%2Ca+b%26c%2Cinvoice');
    server.emit(message);
    server.emit({ type: 'device' });
    server.emit({ type: 'invoice', amount: 7 });
    await settle();
    server.close(1006);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(server.connection.query.get('kinds')).toBe('message,a b&c,invoice');
    await client.close();
    const all = bench();
    await all.client.connect();
    expect(all.server.connection.query.has('kinds')).toBe(false);
    await all.client.close();
  });

  it.each([
    [[]],
    [['']],
    [['message', 'a,b']],
    [['x'.repeat(33)]],
    [['é'.repeat(17)]],
    [Array.from({ length: 206 }, () => 'kind')],
    ...RESERVED.map((name) => [[name]]),
  ])('%j are no kinds', (kinds) => {
    expect(() => bench({ kinds })).toThrow(/^kinds: /);
  });

  it.each([
    [['x'.repeat(32)]],
    [['é'.repeat(16)]],
    [['state', 'relayed', 'toString', 'mark']],
    [Array.from({ length: 205 }, () => 'kind')],
  ])('%j are kinds', (kinds) => {
    expect(() => bench({ kinds })).not.toThrow();
  });

  it.each([
    ['https://h', 'wss://h/ws'],
    ['http://h:1/', 'ws://h:1/ws'],
    ['wss://h/ws', 'wss://h/ws'],
    ['https://h/rt/ws/', 'wss://h/rt/ws'],
  ])('%s is reached at %s', async (url, expected) => {
    const { server, client } = bench({ url });
    await client.connect();
    expect(server.connection.url).toBe(`${expected}?user_id=${USER}`);
    await client.close();
  });

  it.each(['-9223372036854775808', 'Zoë "O\'Hara" %41+&=#?/ 雪😀', 'Zoe\u0308'])('the user %j is asked for to the letter', async (userId) => {
    const { server, client } = bench({ userId });
    await client.connect();
    expect(new URL(server.connection.url).searchParams.get('user_id')).toBe(userId);
    await client.close();
  });
});
