/** @jest-environment jsdom */
// The hooks in Jest's page, whose globals are another realm's than the library's.

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
const { act, createElement } = require('react');
const { createRoot } = require('react-dom/client');
const { RealtimeClient } = require('@hushnet/realtime');
const { useEvents, useRealtime } = require('@hushnet/realtime/react');
const { MockRealtimeServer } = require('@hushnet/realtime/testing');

test('the hooks render state and events', async () => {
  const server = new MockRealtimeServer();
  const { WebSocket } = server;
  const client = new RealtimeClient({ url: '/realtime', userId: 'bob', kinds: ['message'], WebSocket });
  function View() {
    const { status } = useRealtime(client);
    return `${status} ${useEvents(client, 'message').length}`;
  }
  const view = document.createElement('div');
  const root = createRoot(view);
  const shows = async (text) => {
    while (view.textContent !== text) await act(() => new Promise((resolve) => setTimeout(resolve, 1)));
  };
  await act(async () => root.render(createElement(View)));
  await shows('live 0');
  expect(server.connection.url).toBe('ws://localhost/realtime/ws?user_id=bob&kinds=message');
  server.emit({ type: 'message', chat_id: null });
  await shows('live 1');
  await act(async () => root.unmount());
  await client.close();
});
