// @vitest-environment happy-dom
/** The hooks beside each other, in any order. */
import { act } from 'react';
import { createRoot } from 'react-dom/client';
import { expect, it } from 'vitest';
import type { RealtimeClient } from '../../src/index.js';
import { useEvents, useRealtime, useSynced } from '../../src/react.js';
import { bench, settle } from '../support.js';

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

async function mount(node: React.ReactNode) {
  const place = document.createElement('div');
  const errors: unknown[] = [];
  const root = createRoot(place, { onUncaughtError: (e) => void errors.push(e) });
  await act(async () => {
    root.render(node);
    for (let i = 0; i < 10; i++) await settle();
  });
  return { place, root, errors };
}
const options = (server: { cursor: string | null }) => ({
  load: async () => ({ state: 0, cursor: server.cursor }),
  apply: (n: number) => n + 1,
});

it('useRealtime before useSynced, in one component', async () => {
  const { server, client } = bench();
  const View = ({ client }: { client: RealtimeClient }) => {
    const { status } = useRealtime(client);
    const n = useSynced(client, options(server));
    return (
      <>
        {status} {n}
      </>
    );
  };
  const { place, errors } = await mount(<View client={client} />);
  expect({ errors, text: place.textContent }).toEqual({ errors: [], text: 'live 0' });
});

it('useRealtime in a child of what uses useSynced', async () => {
  const { server, client } = bench();
  const Status = () => <>{useRealtime(client).status} </>;
  const View = () => {
    const n = useSynced(client, options(server));
    return (
      <>
        <Status />
        {n}
      </>
    );
  };
  const { place, errors } = await mount(<View />);
  expect({ errors, text: place.textContent }).toEqual({ errors: [], text: 'live 0' });
});

it('useEvents keeps none with max 0', async () => {
  const { server, client } = bench();
  const View = () => {
    useRealtime(client);
    return <>{useEvents(client, 'message', 0).length}</>;
  };
  const { place } = await mount(<View />);
  await act(async () => {
    for (let i = 0; i < 5; i++) {
      server.emit({ type: 'message', chat_id: null });
      await settle();
      await new Promise((r) => setTimeout(r, 150));
    }
  });
  expect(place.textContent).toBe('0');
  await client.close();
});
