// An application without a screen: what it sees, it gives to `globalThis.seen`, a function of run.mjs.

import { server } from './globals';
import { RealtimeClient, RealtimeError, localStorageStore } from '@hushnet/realtime';
import { useEvents, useRealtime } from '@hushnet/realtime/react';
import { asyncStorageStore, followApp } from '@hushnet/realtime/react-native';

async function main() {
  const { fetch } = server;
  const seen = { hooks: [typeof useEvents, typeof useRealtime], ids: [], errors: [], urls: [], refused: [] };
  for (const options of [{ url: 'https://bob:secret@h' }, { url: 'ftp://h' }, { url: 'https://h', kinds: [''] }]) {
    try {
      new RealtimeClient({ userId: 'bob', ...options });
    } catch (error) {
      seen.refused.push(error instanceof TypeError);
    }
  }
  const url = 'wss://example.org:8443/before/ws?tenant=blue';
  const client = new RealtimeClient({ url, userId: 'bob', kinds: ['message', 'é'], fetch, backoff: { firstMs: 1 } });
  const third = new Promise((resolve) => {
    client.on('message', async ({ id }) => {
      await null;
      seen.ids.push(id);
      if (id === 3) resolve();
    });
  });
  client.on('error', (error) => seen.errors.push([error instanceof RealtimeError, error.kind]));
  await client.connect();
  seen.urls.push(server.connection.url);
  server.broadcast('no JSON');
  server.emit({ type: 'message', chat_id: null });
  server.close(1006);
  server.emit({ type: 'message', chat_id: null });
  server.emit({ type: 'message', chat_id: null });
  await third;
  seen.urls.push(server.connection.url);
  server.answer('/before/messages/pending/phone', { body: [{ id: 'first' }], more: true });
  seen.read = await client.fetchPendingMessages('phone');
  await client.close();
  seen.state = client.state;

  const relative = new RealtimeClient({ url: '/realtime', userId: 'bob' });
  await relative.connect();
  seen.relative = relative.state.reason;
  // React Native has no localStorage. That is said, and nothing is thrown at import.
  const storeless = new RealtimeClient({ url, userId: 'bob', cursorStore: localStorageStore('bob') });
  let isSaid = () => {};
  const said = new Promise((resolve) => (isSaid = resolve));
  storeless.on('error', ({ kind }) => isSaid(kind));
  void storeless.connect();
  seen.storeless = await said;
  await storeless.close();
  return seen;
}

/** Across two starts of the application, and in the background. */
async function life() {
  const items = new Map();
  const storage = {
    getItem: async (key) => items.get(key) ?? null,
    setItem: async (key, value) => void items.set(key, value),
    removeItem: async (key) => void items.delete(key),
  };
  const seen = [];
  for (let start = 0; start < 2; start++) {
    let change;
    const AppState = {
      currentState: 'active',
      addEventListener: (_, listener) => ((change = listener), { remove() {} }),
    };
    const client = new RealtimeClient({
      url: 'wss://example.org/ws',
      userId: 'bob',
      cursorStore: asyncStorageStore(storage, 'bob'),
    });
    const stop = followApp(client, { AppState });
    let got = () => {};
    client.on('message', ({ id }) => got(id));
    const next = () => new Promise((resolve) => (got = resolve));
    const first = start === 1 && next();
    await client.connect();
    if (first) seen.push(await first);
    change('inactive');
    seen.push(client.state.status);
    change('background');
    seen.push(client.state.reason);
    server.emit({ type: 'message', chat_id: null });
    const missed = next();
    change('active');
    seen.push(await missed);
    await client.close();
    stop();
    server.emit({ type: 'message', chat_id: null });
  }
  return seen;
}

main().then(async (seen) => globalThis.seen({ ...seen, life: await life() })).catch((error) => globalThis.seen({ failed: `${error.stack}` }));
