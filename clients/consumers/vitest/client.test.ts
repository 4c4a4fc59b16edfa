import { RealtimeClient, RealtimeError, memoryStore } from '@hushnet/realtime';
import type { MessageEvent } from '@hushnet/realtime';
import { MockRealtimeServer } from '@hushnet/realtime/testing';
import { expect, test, vi } from 'vitest';

function made(server: MockRealtimeServer): RealtimeClient {
  const { WebSocket, fetch } = server;
  return new RealtimeClient({ url: 'ws://mock', userId: 'bob', cursorStore: memoryStore(), WebSocket, fetch });
}

test('events come under a clock that is made up', async () => {
  vi.useFakeTimers();
  const server = new MockRealtimeServer();
  const client = made(server);
  const handler = vi.fn<(event: MessageEvent) => void>();
  client.on('message', handler);
  await client.connect();
  server.close(1006);
  server.emit({ type: 'message', chat_id: 'general' });
  await vi.advanceTimersByTimeAsync(30_000);
  expect(handler.mock.calls.map(([event]) => event)).toMatchObject([{ id: 1, chat_id: 'general' }]);
  await client.close();
  vi.useRealTimers();
});

test('state is read, and an error is the class that the package exports', async () => {
  const server = new MockRealtimeServer();
  server.answer('/messages/pending/phone', { body: [] });
  await expect(made(server).fetchPendingMessages('phone')).resolves.toMatchObject({ rows: [] });
  await expect(made(server).fetchPendingMessages('other')).rejects.toBeInstanceOf(RealtimeError);
});
