import { describe, expect, it } from 'vitest';
import { type AppStateLike, asyncStorageStore, followApp } from '../../src/react-native.js';
import { bench, settle } from '../support.js';

const message = { type: 'message', chat_id: null } as const;

/** A phone's AppState and NetInfo. */
function phone(currentState: string) {
  const listeners = { app: new Set<(state: string) => void>(), network: new Set<(state: { isConnected: boolean | null }) => void>() };
  const AppState: AppStateLike = {
    currentState,
    addEventListener: (_, listener) => {
      listeners.app.add(listener as never);
      return { remove: () => listeners.app.delete(listener as never) };
    },
  };
  const NetInfo = {
    addEventListener(listener: (state: { isConnected: boolean | null }) => void) {
      listeners.network.add(listener);
      return () => void listeners.network.delete(listener);
    },
  };
  return {
    AppState,
    NetInfo,
    become: (state: string) => listeners.app.forEach((listener) => listener(state)),
    connect: (isConnected: boolean | null) => listeners.network.forEach((listener) => listener({ isConnected })),
    count: () => listeners.app.size + listeners.network.size,
  };
}

describe('an application on a phone', () => {
  it('lets the connection go in the background, and has what it missed when it is active again', async () => {
    const { server, client, ids } = bench();
    const device = phone('active');
    const stop = followApp(client, device);
    await client.connect();
    device.become('inactive');
    device.become('active');
    await settle();
    expect([server.connects, client.state.status]).toEqual([1, 'live']);
    device.become('background');
    await settle();
    expect(client.state).toMatchObject({ status: 'reconnecting', reason: 'paused' });
    expect(server.connections.size).toBe(0);
    server.emit(message);
    device.become('background');
    device.become('inactive');
    await settle();
    expect(ids).toEqual([]);
    device.become('active');
    await settle();
    expect(client.state).toEqual({ status: 'live', resumed: true });
    expect(ids).toEqual([1]);
    await client.close();
    // What comes when the client is closed opens nothing.
    device.become('background');
    device.become('active');
    await settle();
    expect([server.connects, client.state.status]).toEqual([2, 'closed']);
    stop();
    expect(device.count()).toBe(0);
  });

  it('that is in the background from the start connects when it is active', async () => {
    const { server, client } = bench();
    const device = phone('background');
    followApp(client, device);
    void client.connect();
    await settle();
    expect(server.connects).toBe(0);
    device.become('active');
    await settle();
    expect([server.connects, client.state.status]).toEqual([1, 'live']);
    await client.close();
  });

  it('asks the link when the network is another, and does not wait when it is back', async () => {
    const { server, client } = bench({ random: () => 1 });
    const device = phone('active');
    followApp(client, device);
    await client.connect();
    device.connect(null);
    expect(server.connection.received).toEqual([]);
    device.connect(true);
    expect(server.connection.received).toEqual([{ type: 'ping' }]);
    server.close(1006);
    await settle();
    expect(client.state.status).toBe('reconnecting');
    device.connect(true);
    await settle();
    expect(client.state.status).toBe('live');
    await client.close();
  });
});

it('asyncStorageStore keeps the place across starts, and forgets it', async () => {
  const items = new Map<string, string>();
  const storage = {
    getItem: (key: string) => Promise.resolve(items.get(key) ?? null),
    setItem: (key: string, value: string) => Promise.resolve(items.set(key, value)),
    removeItem: (key: string) => Promise.resolve(items.delete(key)),
  };
  const { server, client, ids } = bench({ cursorStore: asyncStorageStore(storage, 'bob') });
  await client.connect();
  server.emit(message);
  await settle();
  await client.close();
  server.emit(message);
  const again = bench({ cursorStore: asyncStorageStore(storage, 'bob') }, server);
  await again.client.connect();
  await settle();
  await again.client.close();
  expect([ids, again.ids]).toEqual([[1], [2]]);
  await asyncStorageStore(storage, 'bob').clear();
  expect(await asyncStorageStore(storage, 'bob').load()).toBeNull();
});
