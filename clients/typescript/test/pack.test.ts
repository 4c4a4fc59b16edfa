import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const project = mkdtempSync(join(tmpdir(), 'realtime-consumer-'));
afterAll(() => rmSync(project, { recursive: true, force: true }));

const CONSUMER = `
import { RealtimeClient, RealtimeError, indexedDbStore, localStorageStore, memoryStore } from '@hushnet/realtime';
import type { ClientState, CursorStore, MessageEvent, OtherEvent, RealtimeEvent } from '@hushnet/realtime';
import { useEvents, useRealtime } from '@hushnet/realtime/react';
import { MockRealtimeServer } from '@hushnet/realtime/testing';

declare module '@hushnet/realtime' {
  interface EventKinds {
    invoice: { type: 'invoice'; user_id: string; id?: number; cursor?: string | null; amount: number };
  }
}
const server = new MockRealtimeServer();
const stores: CursorStore[] = [memoryStore(), localStorageStore('bob'), indexedDbStore('bob')];
const client = new RealtimeClient({
  url: new URL('https://example.org'),
  getToken: async () => 'token',
  cursorStore: stores[0]!,
  WebSocket: server.WebSocket,
});
new RealtimeClient({ url: 'wss://example.org', userId: 'bob', WebSocket });
const off: () => void = client.on('message', async (event: MessageEvent) => {
  const chat: string | null = event.chat_id;
  // @ts-expect-error a message has no device
  event.sender_device_id;
  void chat;
});
client.on('reset', async () => (await client.fetchPendingMessages('device')).cursor);
client.on('error', (error) => void (error instanceof RealtimeError && error.kind));
client.on('state', (state: ClientState) => {
  if (state.status === 'reconnecting') state.retryInMs.toFixed();
});
client.on('invoice', ({ amount }) => void amount.toFixed());
client.on('weather', async ({ type, user_id, id, degrees }) => {
  const known: [string, string, number | undefined] = [type, user_id, id];
  // @ts-expect-error nothing is known of its fields
  const celsius: number = degrees;
  void [known, celsius];
});
server.emit({ type: 'weather', degrees: 20 });
// @ts-expect-error a message has a chat, or null
server.emit({ type: 'message' });
// @ts-expect-error a handler of states gets no event
client.on('state', (event: OtherEvent) => void event);
export function about(event: RealtimeEvent): string | null {
  switch (event.type) {
    case 'message':
      return event.chat_id;
    case 'pending_session':
      return event.pending_session_id;
    case 'invoice':
      return event.amount.toFixed();
    case 'session':
    case 'device':
      return null;
    default: {
      const other: OtherEvent = event;
      const kind: string = event.type;
      return kind === 'weather' ? \`\${other.degrees}\` : null;
    }
  }
}
export function isWeather(event: RealtimeEvent): boolean {
  // @ts-expect-error traded: a kind that is not declared is compared as a string
  return event.type === 'weather';
}
export async function all(): Promise<RealtimeEvent[]> {
  const events: RealtimeEvent[] = [];
  for await (const event of client) events.push(event);
  return events;
}
export function View(): string {
  const messages: readonly MessageEvent[] = useEvents(client, 'message', 10);
  const weather: readonly OtherEvent[] = useEvents(client, 'weather');
  void weather;
  // @ts-expect-error states are no events
  useEvents(client, 'state');
  return useRealtime(client).status + messages.length;
}
off();
`;

const RUN = `
import { RealtimeClient } from '@hushnet/realtime';
import { MockRealtimeServer } from '@hushnet/realtime/testing';
const server = new MockRealtimeServer();
const client = new RealtimeClient({ url: 'ws://mock', userId: 'bob', WebSocket: server.WebSocket });
client.on('state', ({ status }) => status === 'live' && server.emit({ type: 'message', chat_id: null }));
for await (const event of client) {
  console.log(event.type, event.id);
  void client.close();
}
`;

it('what is packed can be installed, type-checked and run', async () => {
  // Not the synchronous form: vitest gives up a worker that does not answer for a minute.
  const run = async (program: string, args: string[], cwd: string) =>
    (await promisify(execFile)(program, args, { cwd })).stdout;
  const npm = (args: string[], cwd: string) =>
    run('npm', [...args, '--offline', '--no-audit', '--no-fund', '--ignore-scripts'], cwd);
  const [packed] = JSON.parse(await npm(['pack', '--json', '--pack-destination', project], root)) as [
    { filename: string; files: { path: string }[] },
  ];
  const paths = packed.files.map(({ path }) => path);
  expect(paths).toContain('README.md');
  expect(paths.filter((path) => !/^(dist\/|README\.md$|package\.json$)/.test(path))).toEqual([]);

  writeFileSync(join(project, 'package.json'), '{"private":true,"type":"module"}');
  await npm(['install', join(project, packed.filename)], project);
  // React and its types are the consumer's; taken from here, as there may be no network.
  for (const name of ['react', '@types/react', 'csstype']) {
    const at = join(project, 'node_modules', name);
    mkdirSync(dirname(at), { recursive: true });
    symlinkSync(join(root, 'node_modules', name), at);
  }
  writeFileSync(join(project, 'consumer.ts'), CONSUMER);
  const tsc = createRequire(import.meta.url).resolve('typescript/package.json').replace('package.json', 'bin/tsc');
  const strict = ['--strict', '--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess', '--noEmit'];
  const flags = ['--module', 'NodeNext', '--target', 'ES2022', '--lib', 'ES2023,DOM,DOM.Iterable', '--types', 'react'];
  await run(process.execPath, [tsc, ...strict, ...flags, 'consumer.ts'], project);

  writeFileSync(join(project, 'run.mjs'), RUN);
  expect(await run(process.execPath, ['run.mjs'], project)).toBe('message 1\n');
});
