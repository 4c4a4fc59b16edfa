// @vitest-environment happy-dom
import { StrictMode, act } from 'react';
import { createRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { expect, it } from 'vitest';
import type { RealtimeClient } from '../../src/index.js';
import { useEvents, useRealtime, useSynced } from '../../src/react.js';
import { bench, settle } from '../support.js';

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

const message = { type: 'message', chat_id: null } as const;

/** Until the page's next frame is drawn. */
const drawn = () => new Promise((resolve) => setTimeout(resolve, 150));

let renders = 0;

function View({ client, max }: { client: RealtimeClient | null; max?: number }) {
  renders++;
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
    await drawn();
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
    await drawn();
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

it('draws a burst a few times, and shows its newest', async () => {
  const { server, client } = bench();
  const { place } = await mount(client, 3);
  renders = 0;
  await act(async () => {
    for (let i = 0; i < 2_000; i++) server.emit(message);
    while (client.state.status !== 'live' || !place.textContent!.endsWith('2000')) await drawn();
  });
  expect(place.textContent).toBe('live 1998,1999,2000');
  // Strict mode renders each time twice.
  expect(renders).toBeLessThanOrEqual(100);
  await act(() => client.close());
});

it('takes null and other clients without being mounted anew', async () => {
  const [a, b] = [bench(), bench()];
  const place = document.createElement('div');
  const root = createRoot(place);
  const show = (client: RealtimeClient | null) =>
    act(async () => {
      root.render(<View client={client} />);
      await settle();
    });
  const emit = ({ server }: typeof a) =>
    act(async () => {
      server.emit(message);
      await settle();
      await drawn();
    });
  await show(null);
  expect(place.textContent).toBe('closed ');
  await show(a.client);
  await emit(a);
  expect(place.textContent).toBe('live 1');
  await emit(b);
  await show(b.client);
  await emit(a);
  expect(place.textContent).toBe('live ');
  await emit(b);
  expect(place.textContent).toBe('live 2');
  await show(null);
  expect(place.textContent).toBe('closed ');
  await Promise.all([a.client.close(), b.client.close()]);
});

it('keeps a state of the client it is given, and closes that in the end', async () => {
  const { server, client } = bench();
  const load = () => Promise.resolve({ state: ['loaded'], cursor: '1-0' });
  function Rows({ client: given, suffix }: { client: RealtimeClient | null; suffix: string }) {
    const rows = useSynced<string[]>(given, { load, apply: (state, { id }) => [...state, `${id}${suffix}`] });
    return rows?.join() ?? 'nothing';
  }
  const place = document.createElement('div');
  const root = createRoot(place);
  const show = (given: RealtimeClient | null, suffix: string) =>
    act(async () => {
      root.render(
        <StrictMode>
          <Rows client={given} suffix={suffix} />
        </StrictMode>,
      );
      for (let i = 0; i < 5; i++) await settle();
    });
  await show(null, '');
  expect(place.textContent).toBe('nothing');
  await show(client, 'a');
  expect(place.textContent).toBe('loaded');
  server.emit(message);
  await show(client, 'b');
  server.emit(message);
  await show(client, 'b');
  expect(place.textContent).toBe('loaded,1a,2b');
  await show(null, '');
  expect(place.textContent).toBe('nothing');
  expect(client.state).toEqual({ status: 'closed', reason: 'closed' });
});
