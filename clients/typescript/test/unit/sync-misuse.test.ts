/** `sync()` where its client, its listeners or its load misbehave. */

import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { bench, settle } from '../support.js';

const message = { type: 'message', chat_id: null } as const;
beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());
const real = (ms = 0) => vi.advanceTimersByTimeAsync(ms);

it('a listener of the state that throws does not make an event count twice', async () => {
  const { server, client } = bench();
  const synced = client.sync<number>({
    load: async () => ({ state: 0, cursor: server.cursor }),
    apply: (n) => n + 1,
  });
  await real(10);
  let throws = true;
  synced.subscribe(() => {
    if (throws) throw new Error('a component');
  });
  server.emit(message);
  await real(10_000);
  throws = false;
  await real(60_000);
  expect(synced.getSnapshot()).toBe(1);
  await client.close();
});

it.each(['reconnect', 'connect'] as const)('%s() while the state is loaded loses no event', async (how) => {
  const { server, client } = bench();
  server.emit(message);
  const synced = client.sync<number[]>({
    load: async () => {
      const [state, cursor] = [[1], server.cursor]; // as of 1
      await new Promise((r) => setTimeout(r, 1_000)); // a slow network
      return { state, cursor };
    },
    apply: (ids, { id }) => [...ids, id!],
  });
  await real(10);
  server.emit(message); // 2: after the load's cursor
  void client[how]();
  await real(100);
  server.emit(message); // 3
  await real(10_000);
  server.emit(message); // 4
  await real(40_000);
  expect(synced.getSnapshot()).toEqual([1, 2, 3, 4]);
  void client.close();
  await real(10_000);
});

it.each(['reconnect()', 'online'])('%s calls a load that failed again at once', async (how) => {
  const target = new EventTarget();
  vi.stubGlobal('addEventListener', target.addEventListener.bind(target));
  const { server, client } = bench();
  let loads = 0;
  client.sync<number>({
    load: async () => {
      if (++loads < 3) throw new Error('offline');
      return { state: 0, cursor: server.cursor };
    },
    apply: (n) => n,
  });
  await settle();
  if (how === 'online') target.dispatchEvent(new Event('online'));
  else client.reconnect();
  await real(10);
  vi.unstubAllGlobals();
  expect(loads).toBe(2);
  void client.close();
  await real(10_000);
});

it('with onHandlerError close, a load that fails closes the client and says so', async () => {
  const { client, errors } = bench({ onHandlerError: 'close' });
  client.sync<number>({
    load: async () => {
      throw new Error('no');
    },
    apply: (n) => n,
  });
  await real(60_000);
  expect(client.state).toMatchObject({ status: 'closed', reason: 'handler_failed' });
  expect(errors).toHaveLength(1);
  void client.close();
});

it('stop() of a sync that another has replaced leaves the other alone', async () => {
  const { server, client } = bench();
  const options = { load: async () => ({ state: 0, cursor: server.cursor }), apply: (n: number) => n + 1 };
  const first = client.sync<number>(options);
  await real(10);
  server.close(4003);
  await real(10);
  expect(client.state.status).toBe('closed');
  client.sync<number>(options);
  await real(10);
  expect(client.state.status).toBe('live');
  await first.stop();
  expect(client.state.status).toBe('live');
  await client.close();
});
