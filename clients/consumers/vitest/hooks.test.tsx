// @vitest-environment happy-dom
import { RealtimeClient } from '@hushnet/realtime';
import { useEvents, useRealtime } from '@hushnet/realtime/react';
import { MockRealtimeServer } from '@hushnet/realtime/testing';
import { render, screen } from '@testing-library/react';
import { StrictMode } from 'react';
import { expect, test } from 'vitest';

test('the hooks render state and events', async () => {
  const server = new MockRealtimeServer();
  const client = new RealtimeClient({ url: '/realtime', userId: 'bob', WebSocket: server.WebSocket });
  function View() {
    const { status } = useRealtime(client);
    return <p>{`${status} ${useEvents(client, 'message').length}`}</p>;
  }
  render(<StrictMode><View /></StrictMode>);
  await screen.findByText('live 0', {}, { timeout: 60_000 });
  server.emit({ type: 'message', chat_id: null });
  await screen.findByText('live 1', {}, { timeout: 60_000 });
  expect(new URL(server.connection.url).pathname).toBe('/realtime/ws');
  await client.close();
});
