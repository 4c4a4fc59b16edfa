// One client and one server over Deno's own WebSocket: an event, a lost connection, and the event after it.

import { RealtimeClient } from '@hushnet/realtime';
import { MockRealtimeServer } from '@hushnet/realtime/testing';

const sinces = [];
const server = Deno.serve({ hostname: '127.0.0.1', port: 0, onListen: () => {} }, (request) => {
  const since = new URL(request.url).searchParams.get('since');
  const { socket, response } = Deno.upgradeWebSocket(request, { protocol: 'hushnet.v1' });
  socket.onopen = () => {
    const send = (frame) => socket.send(JSON.stringify(frame));
    const number = sinces.push(since);
    send({ type: 'hello', connection_id: `${number}`, cursor: since ?? '1-0', heartbeat_ms: 25_000, resumed: !!since, replayed: 0 });
    send({ type: 'message', user_id: 'bob', id: number, chat_id: null, cursor: `1-${number}` });
    if (number === 1) socket.close(1012);
  };
  return response;
});

const client = new RealtimeClient({ url: `http://127.0.0.1:${server.addr.port}`, userId: 'bob', backoff: { firstMs: 1 } });
const ids = [];
const second = new Promise((resolve) => client.on('message', ({ id }) => ids.push(id) === 2 && resolve()));
await client.connect();
await second;
await client.close();
if (`${ids} ${sinces}` !== '1,2 ,1-1') throw new Error(`events ${ids}, connected from ${sinces}`);
if (typeof MockRealtimeServer !== 'function') throw new Error('no mock server');
Deno.exit(0);
