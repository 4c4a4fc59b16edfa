/** Calls of the client from its own listeners, and what is left of links, timers and identities. */
import { describe, expect, it, vi } from 'vitest';
import type { CursorStore } from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { bench, settle, token, underFakeTimers } from '../support.js';

const message = { type: 'message', chat_id: null } as const;
underFakeTimers();
const real = (ms = 0) => vi.advanceTimersByTimeAsync(ms);

describe('links', () => {
  it('reconnect() while connect({since}) saves makes one link, and none is left after close()', async () => {
    const server = new MockRealtimeServer();
    const store: CursorStore = { load: () => null, save: () => new Promise((r) => setTimeout(r, 100)), clear() {} };
    const { client } = bench({ cursorStore: store }, server);
    void client.connect({ since: '1-0' });
    await real(10);
    client.reconnect();
    await real(500);
    const open = server.connections.size;
    const closing = client.close();
    await real(500);
    await closing;
    const left = server.connections.size;
    server.close(1006); // the leaked one ends
    await real(60_000);
    expect({ open, left, state: client.state.status, timers: vi.getTimerCount() }).toEqual({
      open: 1,
      left: 0,
      state: 'closed',
      timers: 0,
    });
  });

  it('two goaways leave no timer: nothing happens after close()', async () => {
    const { server, client } = bench();
    const states: string[] = [];
    await client.connect();
    server.goaway(10_000);
    server.goaway(10_000);
    await settle();
    await client.close();
    client.on('state', (s) => void states.push(s.status));
    await real(60_000);
    expect({ states, connections: server.connections.size, timers: vi.getTimerCount() }).toEqual({
      states: [],
      connections: 0,
      timers: 0,
    });
  });

  it('is not live without a link (greeted with a full queue, without a log)', async () => {
    const { server, client } = bench({ queueFramesMax: 1 }, new MockRealtimeServer({ log: false }));
    client.on('message', () => new Promise(() => {}));
    await client.connect();
    for (let i = 0; i < 5; i++) server.emit(message);
    await settle();
    expect(client.state).toMatchObject({ status: 'reconnecting', reason: 'overflow' });
    client.reconnect();
    await settle();
    expect([client.state.status, server.connections.size]).toEqual(['reconnecting', 0]);
    void client.close();
    await real(10_000);
  });

  it('does not come back at `online` before the time that the server gave in its close', async () => {
    const target = new EventTarget();
    vi.stubGlobal('addEventListener', target.addEventListener.bind(target));
    const { server, client } = bench();
    await client.connect();
    server.close(1013, JSON.stringify({ message: 'busy', retry_after_ms: 20_000 }));
    await settle();
    target.dispatchEvent(new Event('online'));
    await real(1_000);
    vi.unstubAllGlobals();
    expect(server.connects).toBe(1);
    await client.close();
  });
});

describe('re-entrance', () => {
  it('every listener sees the states in their order', async () => {
    const { client } = bench();
    const seen: string[] = [];
    client.on('state', ({ status }) => {
      if (status === 'connecting') void client.close();
    });
    client.on('state', ({ status }) => void seen.push(status));
    void client.connect();
    await real(100);
    expect([seen.at(-1), client.state.status]).toEqual(['closed', 'closed']);
  });

  it('close() settles when a listener of `state` connects again', async () => {
    const { client } = bench();
    await client.connect();
    let once = true;
    client.on('state', ({ status }) => {
      if (status === 'closed' && once) {
        once = false;
        void client.connect();
      }
    });
    let isDone = false;
    void client.close().then(() => (isDone = true));
    await real(6_000);
    expect(isDone).toBe(true);
    await client.close();
  });

  it('close() from a listener that sees `blocked` ends at once and leaves no timer', async () => {
    const { server, client } = bench();
    client.on('message', () => {
      throw new Error('x');
    });
    await client.connect();
    let isDone = false;
    client.on('state', ({ blocked }) => {
      if (blocked) void client.close().then(() => (isDone = true));
    });
    server.emit(message);
    await real(100);
    expect([isDone, vi.getTimerCount()]).toEqual([true, 0]);
    await real(10_000);
  });

  it('reconnect() from a listener that sees `blocked` calls the handler again at once', async () => {
    const { server, client } = bench();
    let tries = 0;
    client.on('message', () => {
      if (++tries === 1) throw new Error('x');
    });
    await client.connect();
    client.on('state', ({ blocked }) => {
      if (blocked) client.reconnect();
    });
    server.emit(message);
    await real(100);
    expect(tries).toBe(2);
    await client.close();
  });

  it('connect() in an abort listener: the state is that of the new run', async () => {
    const { server, client } = bench();
    const seen: string[] = [];
    client.on(
      'message',
      (_, { signal }) =>
        new Promise((resolve) =>
          signal.addEventListener('abort', () => {
            void client.connect();
            resolve();
          }),
        ),
    );
    await client.connect();
    server.emit(message);
    await settle();
    client.on('state', ({ status }) => void seen.push(status));
    const closing = client.close();
    expect(client.state.status).toBe('connecting');
    await Promise.race([closing, real(6_000)]);
    void client.close();
    await real(10_000);
  });

  it('sync() bears a listener that closes the client at `connecting`', async () => {
    const { client } = bench();
    client.on('state', ({ status }) => {
      if (status === 'connecting') void client.close();
    });
    expect(() => client.sync({ load: async () => ({ state: 0, cursor: null }), apply: (n) => n + 1 })).not.toThrow();
    await real(100);
  });

  it('an idle loop that is closed does not close the run that comes after it', async () => {
    const { client } = bench();
    await client.connect();
    const loop = (async () => {
      for await (const _ of client) void _;
    })();
    await settle();
    void client.close();
    void client.connect();
    await real(1_000);
    await loop;
    expect(client.state.status).toBe('live');
    await client.close();
  });

  it('a loop whose body ends after close() and connect() does not close the new run, nor hold it up', async () => {
    const { server, client, ids } = bench();
    await client.connect();
    let open!: () => void;
    const gate = new Promise<void>((r) => (open = r));
    const loop = (async () => {
      for await (const _ of client) {
        void _;
        await gate;
      }
    })();
    await settle();
    server.emit(message);
    await settle();
    void client.close();
    void client.connect();
    await real(5_000);
    server.emit(message);
    server.emit(message);
    await real(1_000);
    const held = [...ids];
    open();
    await loop;
    await real(1_000);
    expect({ held: held.slice(-2), status: client.state.status }).toEqual({ held: [2, 3], status: 'live' });
    await client.close();
  });
});

describe('timers and listeners', () => {
  it('leaves no timer and says nothing after close() when a handler never settles', async () => {
    const { server, client, errors } = bench();
    client.on('message', () => new Promise(() => {}));
    await client.connect();
    server.emit(message);
    await settle();
    const closing = client.close();
    await real(5_000);
    await closing;
    const timers = vi.getTimerCount();
    await real(60_000);
    expect([timers, errors.map(String)]).toEqual([0, []]);
  });

  it('connect() called often while reconnecting does not pile up listeners', async () => {
    const { client } = bench({
      WebSocket: class {
        constructor() {
          throw new Error('offline');
        }
      } as never,
    });
    for (let i = 0; i < 1_000; i++) void client.connect();
    await real(10);
    // Each is a handler of `state`: `call` resolves a promise for each that is told.
    const spy = vi.spyOn(Promise, 'resolve');
    client.reconnect();
    const calls = spy.mock.calls.length;
    spy.mockRestore();
    expect(calls).toBeLessThan(50);
    await client.close();
  });

  it('a handler that was removed while another one ran is not called', async () => {
    const { server, client } = bench();
    let late = 0;
    client.on('message', () => new Promise((r) => setTimeout(r, 100)));
    const off = client.on('message', () => void late++);
    await client.connect();
    server.emit(message);
    await settle();
    off();
    await real(1_000);
    expect(late).toBe(0);
    await client.close();
  });

  it('the signal that handlers get does not keep their listeners for the life of the connection', async () => {
    const { server, client } = bench();
    const signals = new Set<AbortSignal>();
    client.on('message', (_, { signal }) => void signals.add(signal));
    await client.connect();
    for (let i = 0; i < 100; i++) server.emit(message);
    await real(100);
    expect(signals.size).toBe(100);
    await client.close();
  });
});

describe('identity', () => {
  it('a token is forgotten when getToken says that nobody is signed in', async () => {
    let given: string | null = token(100, 'alice');
    const alice = given;
    const { server, client } = bench({ getToken: () => given });
    await client.connect();
    given = null;
    await real(80_000); // the refresh asks
    expect(client.state).toMatchObject({ status: 'closed', reason: 'signed_out' });
    const bob = (given = token(3600, 'bob'));
    await client.connect();
    expect(server.connection.protocols.join()).not.toContain(alice);
    expect(server.connection.protocols.join()).toContain(bob);
    await client.close();
  });

  it('a token is asked for anew by connect() after close()', async () => {
    let given = token(3600, 'alice');
    const { server, client } = bench({ getToken: () => given });
    await client.connect();
    await client.close();
    given = token(3600, 'bob');
    await client.connect();
    expect(server.connection.protocols.join()).toContain(given);
    await client.close();
  });

  it('an answer of getToken that comes after close() and connect() is not used', async () => {
    const alice = token(3600, 'alice');
    const bob = token(3600, 'bob');
    let n = 0;
    const { server, client } = bench({
      getToken: () => (n++ === 0 ? new Promise<string>((r) => setTimeout(() => r(alice), 5_000)) : bob),
    });
    void client.connect();
    await real(100);
    await client.close();
    await client.connect();
    await real(10_000);
    server.close(1006);
    await real(5_000);
    expect(server.connection.protocols.join()).toContain(bob);
    await client.close();
  });

  it('no token in what the logger and the listeners get', async () => {
    const secret = `eyJhbGciOiJ/${'x'.repeat(20)}`;
    const entries: unknown[] = [];
    class Picky {
      constructor(_: string, protocols: string[]) {
        throw new SyntaxError(`The subprotocol '${protocols[1]}' is invalid.`); // as Chromium says it
      }
    }
    const { client } = bench({
      getToken: () => secret,
      WebSocket: Picky as never,
      logger: (e) => void entries.push(e),
    });
    void client.connect();
    await real(100);
    const { inspect } = await import('node:util');
    expect(inspect(entries, { depth: 10 })).not.toContain(secret);
    void client.close();
    await real(10_000);
  });
});
