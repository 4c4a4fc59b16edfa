// @vitest-environment happy-dom
import { StrictMode, act } from 'react';
import { createRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { expect, it } from 'vitest';
import type { RealtimeClient } from '../../src/index.js';
import { useEvents, useRealtime } from '../../src/react.js';
import { bench, settle } from '../support.js';

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

const message = { type: 'message', chat_id: null } as const;

function View({ client, max }: { client: RealtimeClient; max?: number }) {
  const { status } = useRealtime(client);
  const events = useEvents(client, 'message', max);
  return `${status} ${events.map(({ id }) => id).join()}`;
}

async function mount(client: RealtimeClient, max?: number) {
  const place = document.createElement('div');
  const root = createRoot(place);
  await act(async () => {
    root.render(
      <StrictMode>
        <View client={client} {...(max && { max })} />
      </StrictMode>,
    );
    await settle();
  });
  return { place, root };
}

it('connects once under strict mode, and shows state and events', async () => {
  const { server, client } = bench();
  const { place, root } = await mount(client);
  expect(place.textContent).toBe('live ');
  expect(server.connects).toBe(1);
  await act(async () => {
    server.emit(message);
    server.emit({ type: 'device' });
    server.emit(message);
    await settle();
  });
  expect(place.textContent).toBe('live 1,3');
  await act(async () => {
    root.unmount();
    await settle();
  });
  expect(client.state.status).toBe('live');
  await client.close();
});

it('keeps the newest events', async () => {
  const { server, client } = bench();
  const { place } = await mount(client, 3);
  await act(async () => {
    for (let i = 0; i < 10; i++) server.emit(message);
    await settle();
    await settle();
  });
  expect(place.textContent).toBe('live 8,9,10');
  await act(() => client.close());
  expect(place.textContent).toBe('closed 8,9,10');
});

it('does not connect again what was closed', async () => {
  const { server, client } = bench();
  await client.connect();
  await client.close();
  await mount(client);
  expect([server.connects, client.state.status]).toEqual([1, 'closed']);
});

it('renders on a server without connecting', () => {
  const { server, client } = bench();
  expect(renderToString(<View client={client} />)).toBe('closed ');
  expect([server.connects, client.state.status]).toEqual([0, 'closed']);
});
