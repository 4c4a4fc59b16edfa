import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type ClientState, type LogEntry, memoryStore } from '../../src/index.js';
import { bench, settle } from '../support.js';

const message = { type: 'message', chat_id: null } as const;
let reported: unknown[];

beforeEach(() => {
  vi.useFakeTimers();
  reported = [];
  vi.stubGlobal('reportError', (cause: unknown) => reported.push(cause));
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

describe('what listeners throw', () => {
  it.each([
    ['throws', () => { throw new Error('mine'); }],
    ['rejects', () => Promise.reject(new Error('mine'))],
  ])('is reported and hurts nobody: a listener that %s', async (_, fails) => {
    const { server, client, ids } = bench({ logger: fails });
    client.on('state', fails);
    client.on('error', fails);
    await client.connect();
    server.broadcast('no json');
    server.emit(message);
    server.close(1006);
    await settle();
    server.emit(message);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(ids).toEqual([1, 2]);
    expect(client.state).toEqual({ status: 'live', resumed: true });
    await client.close();
    await settle();
    expect(reported.length).toBeGreaterThan(5);
    expect(new Set(reported.map(String))).toEqual(new Set(['Error: mine']));
  });

  it('may call the client from a listener', async () => {
    const { server, client, ids } = bench();
    let closes = 0;
    client.on('state', ({ status }) => {
      if (status === 'live' && closes++ < 3) void client.close();
    });
    for (let i = 0; i < 4; i++) await client.connect();
    server.emit(message);
    await settle();
    expect([client.state.status, ids]).toEqual(['live', [1]]);
    await client.close();
  });
});

describe('a handler that fails', () => {
  it('is called again until it works, order kept, from 1 to 30 s later', async () => {
    const { server, client, errors } = bench();
    const calls: [number | undefined, number, number][] = [];
    let fails = true;
    const begun = Date.now();
    client.on('message', ({ id }, { attempt }) => {
      calls.push([id, attempt, Date.now() - begun]);
      if (fails) throw new Error('offline');
    });
    await client.connect();
    server.emit(message);
    server.emit(message);
    await settle();
    expect(client.state).toMatchObject({ status: 'live', blocked: { event: { id: 1 }, attempt: 1 } });
    await vi.advanceTimersByTimeAsync(120_000);
    expect(calls.map(([, , at]) => at)).toEqual([0, 2_000, 6_000, 14_000, 30_000, 60_000, 90_000, 120_000]);
    expect(calls.map(([id, attempt]) => [id, attempt])).toEqual(calls.map((_, i) => [1, i + 1]));
    expect(errors).toHaveLength(8);
    fails = false;
    await vi.advanceTimersByTimeAsync(30_000);
    expect(calls.slice(8).map(([id, attempt]) => [id, attempt])).toEqual([[1, 9], [2, 1]]);
    expect(client.state).toEqual({ status: 'live', resumed: false });
    await client.close();
  });

  it.each([['online'], ['reconnect']])('is called again at once after %s', async (how) => {
    const page = new EventTarget();
    vi.stubGlobal('addEventListener', page.addEventListener.bind(page));
    const { server, client } = bench();
    let tries = 0;
    client.on('message', () => {
      if (++tries < 2) throw new Error('offline');
    });
    await client.connect();
    server.emit(message);
    await settle();
    if (how === 'online') page.dispatchEvent(new Event('online'));
    else client.reconnect();
    await settle();
    expect(tries).toBe(2);
    expect(client.state.blocked).toBeUndefined();
    await client.close();
  });

  it('is called again alone: those that worked are not', async () => {
    const { server, client } = bench();
    const calls: string[] = [];
    client.on('message', () => void calls.push('a'));
    client.on('message', (_, { attempt }) => {
      calls.push('b');
      if (attempt < 3) throw new Error('no');
    });
    client.on('message', () => void calls.push('c'));
    await client.connect();
    server.emit(message);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(calls.join('')).toBe('abcbb');
    await client.close();
  });

  it('counts as done when it is removed meanwhile', async () => {
    const { server, client, ids } = bench();
    const off = client.on('message', () => {
      throw new Error('no');
    });
    await client.connect();
    server.emit(message);
    server.emit(message);
    await settle();
    expect(ids).toEqual([1]);
    off();
    await vi.advanceTimersByTimeAsync(2_000);
    expect(ids).toEqual([1, 2]);
    expect(client.state.blocked).toBeUndefined();
    await client.close();
  });

  it('is asked about each time where onHandlerError is a function', async () => {
    const asked: unknown[] = [];
    const { server, client } = bench({
      onHandlerError: ({ kind }, event, attempt) => {
        asked.push([kind, (event as { id?: number }).id, attempt]);
        if (attempt === 1) throw new Error('mine');
        return attempt === 2 ? 'retry' : 'skip';
      },
    });
    client.on('message', ({ id }) => {
      if (id === 1) throw new Error('no');
    });
    await client.connect();
    server.emit(message);
    server.emit(message);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(asked).toEqual([['handler', 1, 1], ['handler', 1, 2], ['handler', 1, 3]]);
    expect(reported.map(String)).toEqual(['Error: mine']);
    expect(client.state).toEqual({ status: 'live', resumed: false });
    await client.close();
  });

  it.each(['retry', 'skip'] as const)('of a reset moves nothing (%s)', async (onHandlerError) => {
    const store = memoryStore();
    const { server, client, ids } = bench({ cursorStore: store, onHandlerError });
    let fails = true;
    client.on('reset', () => {
      if (fails) throw new Error('offline');
    });
    await client.connect();
    server.emit(message);
    await vi.advanceTimersByTimeAsync(50);
    server.emit(message);
    server.reset('retention');
    server.emit(message);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(ids).toEqual([1, 2]);
    expect((await store.load())!.cursor).toBe('1-2');
    fails = false;
    await vi.advanceTimersByTimeAsync(30_000);
    expect(ids).toEqual([1, 2, 3]);
    await client.close();
  });
});

describe('close()', () => {
  it('aborts the signal, and what ends after it saves nothing', async () => {
    const store = memoryStore();
    const { server, client } = bench({ cursorStore: store });
    const seen: unknown[] = [];
    client.on('message', ({ id }, { signal }) => {
      seen.push(id);
      return new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
    });
    await client.connect();
    server.emit(message);
    await settle();
    await client.close();
    expect((await store.load())!.cursor).toBe('1-0');
    await client.connect();
    await settle();
    expect(seen).toEqual([1, 1]);
    await client.close();
  });

  it('settles within 5 s though a handler never does, and the client can be connected again', async () => {
    const { server, client, ids } = bench();
    let isStuck = true;
    client.on('message', () => (isStuck ? new Promise(() => {}) : undefined));
    await client.connect();
    server.emit(message);
    await settle();
    let isClosed = false;
    void client.close().then(() => (isClosed = true));
    await vi.advanceTimersByTimeAsync(5_000);
    expect(isClosed).toBe(true);
    isStuck = false;
    await client.connect();
    await settle();
    expect(ids).toEqual([1, 1]);
    await client.close();
  });

  it('ends the wait of a failed handler', async () => {
    const { server, client } = bench();
    client.on('message', () => {
      throw new Error('no');
    });
    await client.connect();
    server.emit(message);
    await settle();
    await client.close();
    expect(client.state).toEqual({ status: 'closed', reason: 'closed' });
    expect(vi.getTimerCount()).toBe(0);
  });
});

it('reports a handler that has not ended in time, once, and waits for it', async () => {
  const { server, client, errors, ids } = bench({ handlerTimeoutMs: 500 });
  let finish!: () => void;
  client.on('message', ({ id }) => (id === 1 ? new Promise<void>((resolve) => (finish = resolve)) : undefined));
  await client.connect();
  server.emit(message);
  server.emit(message);
  await vi.advanceTimersByTimeAsync(499);
  expect(errors).toEqual([]);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(errors).toMatchObject([{ kind: 'handler', message: expect.stringContaining('500 ms') as string }]);
  finish();
  await settle();
  expect(ids).toEqual([1, 2]);
  await client.close();
});

describe('never silent', () => {
  it.each([
    [4001, 'unauthenticated', 'Give a proof'],
    [4003, 'revoked', 'sign in anew'],
    [1009, 'refused', 'at fault'],
  ])('a close with %i is an error with the reason of the server', async (code, reason, advice) => {
    const { server, client, errors } = bench();
    await client.connect();
    server.close(code, '{"code":"x","message":"because of this"}');
    await settle();
    expect(errors).toMatchObject([{ kind: 'closed', code: reason }]);
    expect(errors[0]!.message).toContain('because of this');
    expect(errors[0]!.message).toContain(advice);
    expect(client.state).toMatchObject({ status: 'closed', reason, error: errors[0] });
  });

  it('an error that nobody listens to goes to the console, and so does a reset', async () => {
    const error = vi.spyOn(console, 'error').mockImplementation(() => {});
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => {});
    const { RealtimeClient } = await import('../../src/index.js');
    const { server } = bench();
    const client = new RealtimeClient({ url: 'ws://mock', userId: 'u', WebSocket: server.WebSocket });
    await client.connect();
    server.reset('retention');
    server.emit(message);
    server.emit(message);
    await settle();
    server.close(4003, 'gone');
    await settle();
    expect(error.mock.calls.map(([text]) => String(text))).toEqual([expect.stringContaining('gone')]);
    expect(warn.mock.calls.map(([text]) => String(text))).toEqual([
      expect.stringContaining('no handler fetches the state anew'),
      expect.stringContaining('events of the kind message'),
    ]);
    expect(client.unhandledEvents).toBe(2);
  });

  it('a logger has everything, and no proof', async () => {
    const secret = 'c2VjcmV0';
    const entries: LogEntry[] = [];
    const signDevice = (timestamp: number) => ({ key: secret, signature: secret, timestamp });
    const { server, client } = bench({ signDevice, logger: (entry) => void entries.push(entry) });
    vi.spyOn(server, 'admit').mockImplementationOnce(() => {});
    const broken = class {
      constructor(_: string, protocols: string[]) {
        throw new SyntaxError(`the subprotocol '${protocols[1]}' is invalid`);
      }
    };
    const other = bench({ signDevice, WebSocket: broken as never, logger: (entry) => void entries.push(entry) });
    void other.client.connect();
    await settle();
    await other.client.close();
    void client.connect();
    await settle();
    await client.close();
    const states = entries.flatMap(({ state }: { state?: ClientState }) => (state ? [state.status] : []));
    expect(states).toContain('reconnecting');
    expect(entries.some(({ level, error }) => level === 'error' && error?.kind === 'socket')).toBe(true);
    expect(entries.map(({ message }) => message).join('\n')).not.toContain(secret);
  });
});
