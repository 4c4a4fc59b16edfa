// Prints a user's events and the connection's state, until Ctrl+C. Goes on where it was after a lost
// connection; kept in memory, so that it begins anew with each start.

import { RealtimeClient } from '@hushnet/realtime';
import { WebSocket } from 'ws';

const [url, userId] = process.argv.slice(2);
if (!url || !userId) {
  console.error('usage: npm start -- http://127.0.0.1:8080 <user id>');
  process.exit(2);
}

const client = new RealtimeClient({ url, userId, WebSocket });
client.on('state', (state) => console.log('state', JSON.stringify(state)));
client.on('error', (error) => console.error('error', error.kind, error.message));
// Here a real client would fetch its state anew, and return that state's cursor.
client.on('reset', ({ reason }) => console.log('reset', reason));
process.on('SIGINT', () => void client.close());

for await (const event of client) console.log('event', JSON.stringify(event));
