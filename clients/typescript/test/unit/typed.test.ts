// What the compiler refuses: `npx tsc --noEmit -p test` finds an `@ts-expect-error` without an error.
import { it } from 'vitest';
import { type KindName, type MessageEvent, type OtherEvent, RealtimeClient } from '../../src/index.js';
import { useEvents } from '../../src/react.js';

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

const made = <Kinds extends object = Events>() => new RealtimeClient<Kinds>({ url: 'ws://mock', userId: 'bob' });

it('a client of the kinds that are given takes no other name', () => {
  const client = made();
  client.on('order', ({ key }) => void key.id.toFixed());
  for (const name of ['state', 'error', 'reset'] as const) client.on(name, () => {});
  // @ts-expect-error no kind has this name
  client.on('ordr', () => {});
  // @ts-expect-error a kind of the library's that is not among them
  client.on('device', () => {});
  // @ts-expect-error any text is no name of a kind
  client.on('order' as string, () => {});
  const Orders = () => useEvents(client, 'order')[0]?.key.id;
  // @ts-expect-error no kind has this name
  const Misspelt = () => useEvents(client, 'ordr');
  void [Orders, Misspelt];
});

it('`kinds` takes the names of kinds', () => {
  const options = { url: 'ws://mock', userId: 'bob' };
  void new RealtimeClient<Events>({ ...options, kinds: ['order'] });
  // @ts-expect-error no kind has this name
  void new RealtimeClient<Events>({ ...options, kinds: ['ordr'] });
  void new RealtimeClient({ ...options, kinds: ['weather'] });
});

it('a kind that is added to those that are given is one of them', () => {
  const client = made<Events & { weather: OtherEvent }>();
  client.on('weather', ({ degrees }) => void degrees);
  client.on('order', ({ key }) => void key.id.toFixed());
  // @ts-expect-error no kind has this name
  client.on('wether', () => {});
});

it('a client of no kinds takes any name', () => {
  const client = new RealtimeClient({ url: 'ws://mock', userId: 'bob' });
  client.on('message', ({ chat_id }) => void chat_id?.trim());
  client.on('weather', ({ degrees }) => void degrees);
  client.on('weather' as string, () => {});
  const any: KindName = 'weather';
  // Fewer kinds than the library's four are kinds that are given.
  const few = made<{ message: MessageEvent }>();
  few.on('message', ({ chat_id }) => void chat_id?.trim());
  // @ts-expect-error no kind has this name
  few.on('device', () => {});
  void any;
});
