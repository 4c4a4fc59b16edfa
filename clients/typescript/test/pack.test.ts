import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const project = mkdtempSync(join(tmpdir(), 'realtime-consumer-'));
afterAll(() => rmSync(project, { recursive: true, force: true }));

const CONSUMER = `
import { RealtimeClient, RealtimeError, indexedDbStore, localStorageStore, memoryStore } from '@hushnet/realtime';
import type { ClientState, CursorStore, MessageEvent, OtherEvent, RealtimeEvent } from '@hushnet/realtime';
import { useEvents, useRealtime, useSynced } from '@hushnet/realtime/react';
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

/** What \`hushnet-realtime types --typescript\` writes, in small. */
interface Events {
  order:
    | { type: 'order'; op: 'insert'; user_id: string; id?: number; key: { id: number }; row: { status: string } }
    | { type: 'order'; op: 'delete'; user_id: string; id?: number; key: { id: number } };
}
const typed = new RealtimeClient<Events>({ url: 'wss://example.org', userId: '42', WebSocket: server.WebSocket });
typed.on('order', async (event, { signal, attempt }) => {
  const key: number = event.key.id;
  if (event.op === 'insert') event.row.status.trim();
  // @ts-expect-error a deletion shows the key alone
  else event.row;
  void [key, signal.aborted, attempt.toFixed()];
});
// @ts-expect-error no kind has this name
typed.on('ordr', () => {});
// @ts-expect-error nor has one this name
useEvents(typed, 'ordr');
const mock = new MockRealtimeServer<Events>();
mock.emit({ type: 'order', op: 'insert', key: { id: 7 }, row: { status: 'new' } });
// @ts-expect-error the row has no state
mock.emit({ type: 'order', op: 'insert', key: { id: 7 }, row: { state: 'new' } });
typed.on('reset', ({ reason }) => void reason.trim());
const orders = typed.sync<number[]>({
  load: async () => ({ state: [], cursor: null }),
  apply: (ids, event) => (event.type === 'order' && event.op === 'insert' ? [...ids, event.key.id] : ids),
});
export function Orders(): number {
  const events: readonly Events['order'][] = useEvents(typed, 'order');
  const ids: number[] | undefined = useSynced(typed, { load: async () => ({ state: [7], cursor: null }), apply: (all) => all });
  return events.length + (ids?.length ?? 0) + useRealtime(typed).status.length + (orders.getSnapshot()?.length ?? 0);
}
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

const COMMON = `
const { RealtimeClient, RealtimeError } = require('@hushnet/realtime');
const { MockRealtimeServer } = require('@hushnet/realtime/testing');
require('@hushnet/realtime/react');
const { version } = require('@hushnet/realtime/package.json');
const server = new MockRealtimeServer();
const client = new RealtimeClient({ url: 'ws://mock', userId: 'bob', WebSocket: server.WebSocket });
client.on('error', (error) => {
  console.log(error instanceof RealtimeError, typeof version);
  client.close();
});
client.connect().then(() => server.broadcast('no JSON'));
`;

/** The entries as a resolver finds them that knows no `exports`. */
const OLD = `
const { existsSync } = require('node:fs');
const { join } = require('node:path');
const root = join(process.cwd(), 'node_modules/@hushnet/realtime');
for (const at of ['', 'react', 'react-native', 'testing'].map((entry) => join(root, entry))) {
  const fields = require(join(at, 'package.json'));
  for (const name of ['main', 'module', 'types']) {
    if (!existsSync(join(at, fields[name]))) throw new Error(at + ' has no ' + name);
  }
  require(at);
}
`;

// Not the synchronous form: vitest gives up a worker that does not answer for a minute.
const run = async (program: string, args: string[], cwd: string) =>
  (await promisify(execFile)(program, args, { cwd })).stdout;
const npm = (args: string[], cwd: string) =>
  run('npm', [...args, '--offline', '--no-audit', '--no-fund', '--ignore-scripts'], cwd);
let tarball = '';
let paths: string[] = [];

beforeAll(async () => {
  const [packed] = JSON.parse(await npm(['pack', '--json', '--pack-destination', project], root)) as [
    { filename: string; files: { path: string }[] },
  ];
  tarball = join(project, packed.filename);
  paths = packed.files.map(({ path }) => path);
  writeFileSync(join(project, 'package.json'), '{"private":true,"type":"module"}');
  await npm(['install', tarball], project);
  // React and its types are the consumer's; taken from here, as there may be no network.
  for (const name of ['react', '@types/react', 'csstype']) {
    const at = join(project, 'node_modules', name);
    mkdirSync(dirname(at), { recursive: true });
    symlinkSync(join(root, 'node_modules', name), at);
  }
});

it('what is packed is what an application needs', () => {
  expect(paths).toContain('README.md');
  const others = /^(dist\/|(react|react-native|testing)\/package\.json$|README\.md$|package\.json$)/;
  expect(paths.filter((path) => !others.test(path))).toEqual([]);
});

it('the types are found by each way of resolving them', async () => {
  const attw = createRequire(import.meta.url).resolve('@arethetypeswrong/cli/package.json').replace('package.json', 'dist/index.js');
  // Ends with 1, and says what is wrong on stdout, where a problem is found.
  const said = await run(process.execPath, [attw, tarball, '--format', 'ascii', '--no-color', '--no-emoji'], project).catch(
    (error: { stdout: string }) => error.stdout,
  );
  expect(said).toContain('No problems found');
});

it('it is type-checked in each way of resolving it', async () => {
  const tsc = createRequire(import.meta.url).resolve('typescript/package.json').replace('package.json', 'bin/tsc');
  const strict = ['--strict', '--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess', '--noEmit'];
  const flags = [...strict, '--target', 'ES2022', '--lib', 'ES2023,DOM,DOM.Iterable', '--types', 'react'];
  for (const [file, ...how] of [
    ['consumer.ts', '--module', 'NodeNext'],
    ['consumer.cts', '--module', 'Node16'],
    ['consumer.ts', '--module', 'ESNext', '--moduleResolution', 'bundler'],
    ['consumer.ts', '--module', 'CommonJS', '--moduleResolution', 'node10'],
  ] as [string, ...string[]][]) {
    writeFileSync(join(project, file), CONSUMER);
    await run(process.execPath, [tsc, ...flags, ...how, file], project);
  }
});

it('it runs as an ES module', async () => {
  writeFileSync(join(project, 'run.mjs'), RUN);
  expect(await run(process.execPath, ['run.mjs'], project)).toBe('message 1\n');
});

it('it runs as CommonJS in a Node that cannot require an ES module', async () => {
  const [major, minor] = process.versions.node.split('.').map(Number) as [number, number];
  const flags = major > 20 || minor >= 19 ? ['--no-experimental-require-module'] : [];
  writeFileSync(join(project, 'run.cjs'), COMMON);
  expect(await run(process.execPath, [...flags, 'run.cjs'], project)).toBe('true string\n');
  writeFileSync(join(project, 'old.cjs'), OLD);
  await run(process.execPath, [...flags, 'old.cjs'], project);
});

it('what the entries share is one in each format', async () => {
  // As many definitions in all files of a format: an error's class is the same in all of them.
  const count = (folder: string, text: string) =>
    paths
      .filter((path) => dirname(path) === folder && path.endsWith('.js'))
      .filter((path) => readFileSync(join(project, 'node_modules/@hushnet/realtime', path), 'utf8').includes(text)).length;
  for (const folder of ['dist', 'dist/cjs']) expect(count(folder, 'extends Error')).toBe(1);
});
