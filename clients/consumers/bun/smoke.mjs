// One client and one server over Bun's own WebSocket: an event, a lost connection, and the event after it.

import { createRequire } from 'node:module';
import { RealtimeClient } from '@hushnet/realtime';
import { MockRealtimeServer } from '@hushnet/realtime/testing';

const sinces = [];
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch(request) {
    const since = new URL(request.url).searchParams.get('since');
    const headers = { 'sec-websocket-protocol': 'hushnet.v1' };
    return server.upgrade(request, { data: { since }, headers }) ? undefined : new Response('', { status: 400 });
  },
  websocket: {
    open(socket) {
      const { since } = socket.data;
      const send = (frame) => socket.send(JSON.stringify(frame));
      const number = sinces.push(since);
      send({ type: 'hello', connection_id: `${number}`, cursor: since ?? '1-0', heartbeat_ms: 25_000, resumed: !!since, replayed: 0 });
      send({ type: 'message', user_id: 'bob', id: number, chat_id: null, cursor: `1-${number}` });
      if (number === 1) socket.close(1012);
    },
    message() {},
  },
});

const client = new RealtimeClient({ url: `http://127.0.0.1:${server.port}`, userId: 'bob', backoff: { firstMs: 1 } });
const ids = [];
const second = new Promise((resolve) => client.on('message', ({ id }) => ids.push(id) === 2 && resolve()));
await client.connect();
await second;
await client.close();
if (`${ids} ${sinces}` !== '1,2 ,1-1') throw new Error(`events ${ids}, connected from ${sinces}`);
if (typeof MockRealtimeServer !== 'function') throw new Error('no mock server');
const common = createRequire(import.meta.url)('@hushnet/realtime');
if (typeof common.RealtimeClient !== 'function') throw new Error('require finds no client');
process.exit(0);
