// Jest's defaults: CommonJS, and an environment without a page.

const { RealtimeClient, RealtimeError } = require('@hushnet/realtime');
const { MockRealtimeServer } = require('@hushnet/realtime/testing');

test('events come, each once across a lost connection', async () => {
  const server = new MockRealtimeServer();
  const { WebSocket, fetch } = server;
  const client = new RealtimeClient({ url: 'ws://mock', userId: 'bob', WebSocket, fetch, backoff: { firstMs: 1 } });
  const ids = [];
  let isThird = () => {};
  const third = new Promise((resolve) => (isThird = resolve));
  client.on('message', ({ id }) => {
    ids.push(id);
    if (id === 3) isThird();
  });
  await client.connect();
  server.emit({ type: 'message', chat_id: null });
  server.close(1006);
  server.emit({ type: 'message', chat_id: null });
  server.emit({ type: 'message', chat_id: null });
  await third;
  expect(ids).toEqual([1, 2, 3]);
  await client.close();
});

test('state is read, and an error is the class that the package exports', async () => {
  const server = new MockRealtimeServer();
  const { WebSocket, fetch } = server;
  const client = new RealtimeClient({ url: 'ws://mock', userId: 'bob', WebSocket, fetch });
  server.answer('/messages/pending/phone', { body: [{ id: 'first' }] });
  expect((await client.fetchPendingMessages('phone')).rows).toEqual([{ id: 'first' }]);
  await expect(client.fetchPendingMessages('other')).rejects.toBeInstanceOf(RealtimeError);
});

test('Jest mocks the package', () => {
  jest.isolateModules(() => {
    jest.mock('@hushnet/realtime');
    const mocked = require('@hushnet/realtime');
    expect(jest.isMockFunction(mocked.RealtimeClient)).toBe(true);
  });
});
