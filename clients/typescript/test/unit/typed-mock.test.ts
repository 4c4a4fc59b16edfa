// What the mock refuses to send: `npx tsc --noEmit -p test` finds an `@ts-expect-error` without an error.
import { expect, it } from 'vitest';
import { type MessageEvent, type OtherEvent, RealtimeClient } from '../../src/index.js';
import { MockRealtimeServer } from '../../src/testing.js';
import { settle } from '../support.js';

/** What `hushnet-realtime types --typescript` writes, in small. */
interface Order {
  readonly type: 'order';
  readonly user_id: string;
  readonly id?: number;
  readonly cursor?: string | null;
  readonly key: { readonly id: number };
}
interface Events {
  message: MessageEvent;
  order:
    | (Order & { readonly op: 'insert'; readonly row: { readonly status: string; readonly note: string | null } })
    | (Order & { readonly op: 'update'; readonly changed: { readonly status?: string } })
    | (Order & { readonly op: 'delete' });
}

it('a mock of the kinds that are given sends their rows', async () => {
  const server = new MockRealtimeServer<Events>();
  const client = new RealtimeClient<Events>({ url: 'ws://mock', userId: 'bob', WebSocket: server.WebSocket });
  const seen: unknown[] = [];
  client.on('order', (event) => void seen.push(event.op === 'insert' ? event.row.status : event.op));
  client.on('message', ({ chat_id }) => void seen.push(chat_id));
  await client.connect();
  server.emit({ type: 'order', op: 'insert', key: { id: 1 }, row: { status: 'new', note: null } });
  server.emit({ type: 'order', op: 'update', key: { id: 1 }, changed: { status: 'paid' } });
  server.emit({ type: 'order', op: 'delete', key: { id: 1 }, user_id: 'bob' });
  server.emit({ type: 'message', chat_id: null });
  await settle();
  expect(seen).toEqual(['new', 'update', 'delete', null]);
  await client.close();
});

it('a mock of the kinds that are given is not told to send another row', () => {
  const server = new MockRealtimeServer<Events>();
  const key = { id: 1 };
  // @ts-expect-error the row has no state
  server.emit({ type: 'order', op: 'insert', key, row: { status: 'new', note: null, state: 'new' } });
  // @ts-expect-error the row has a note, or null
  server.emit({ type: 'order', op: 'insert', key, row: { status: 'new' } });
  // @ts-expect-error a status is a text
  server.emit({ type: 'order', op: 'insert', key, row: { status: 7, note: null } });
  // @ts-expect-error an update shows what has changed
  server.emit({ type: 'order', op: 'update', key, row: { status: 'paid', note: null } });
  // @ts-expect-error a deletion shows the key alone
  server.emit({ type: 'order', op: 'delete', key, row: { status: 'paid', note: null } });
  // @ts-expect-error the key has an id
  server.emit({ type: 'order', op: 'delete', key: {} });
  // @ts-expect-error there is no such kind
  server.emit({ type: 'ordr', op: 'delete', key });
});

it('a mock of no kinds sends any', () => {
  const server = new MockRealtimeServer();
  server.emit({ type: 'weather', degrees: 20 });
  server.emit({ type: 'message', chat_id: null });
  // @ts-expect-error a message has a chat, or null
  server.emit({ type: 'message', chat: null });
});

it('a mock sends what is added to the kinds that are given', () => {
  const server = new MockRealtimeServer<Events & { weather: OtherEvent }>();
  server.emit({ type: 'weather', degrees: 20 });
  // @ts-expect-error there is no such kind
  server.emit({ type: 'wether', degrees: 20 });
});
