// @vitest-environment happy-dom
// The recipes of README.md for React, as they stand there: their types, and what they do.
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import 'fake-indexeddb/auto';
import { type ComponentType, type ReactNode, act } from 'react';
import { createRoot, hydrateRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterAll, expect, it, vi } from 'vitest';
import { MockRealtimeServer } from '../../src/testing.js';
import { DEADLINE_MS, until } from '../support.js';

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

const root = join(fileURLToPath(import.meta.url), '../../..');
// Below the folder with React and its types.
const place = mkdtempSync(join(root, 'node_modules/.readme-'));
afterAll(() => rmSync(place, { recursive: true, force: true }));

/** The code that begins with its file's name. */
const recipes = new Map(
  [...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/```tsx\n\/\/ (\w+\.tsx)\n([^]*?)```/g)].map(
    ([, name, code]) => [name!, code!],
  ),
);

/** What the reader has: `events.ts` as `hushnet-realtime types --typescript` writes it, in short. */
const OWN = {
  'events.ts': `
    interface Order { readonly type: 'order'; readonly user_id: string; readonly key: { readonly id: number } }
    interface Row { readonly row: { readonly status: string }; readonly truncated?: undefined }
    export interface Events {
      order:
        | (Order & Row & { readonly op: 'insert' | 'update' })
        | (Order & { readonly op: 'delete'; readonly truncated?: undefined })
        | (Order & { readonly op: 'insert' | 'update'; readonly truncated: true });
    }`,
  'login.ts': `
    declare global { var token: string | null }
    export const getToken = async (): Promise<string | null> => globalThis.token;
    export const logIn = async (): Promise<string> => ((globalThis.token = 'alice'), 'alice');`,
  'state.ts': `
    import type { Loaded } from './orders';
    export const readState = async (): Promise<Loaded> => ({ state: [], cursor: null });`,
};
for (const [name, code] of [...recipes, ...Object.entries(OWN)]) writeFileSync(join(place, name), code);

const LIBRARY = {
  '@hushnet/realtime': join(root, 'src/index.ts'),
  '@hushnet/realtime/react': join(root, 'src/react.ts'),
};

/** The module of a recipe, with the library as it is here and the test's React. */
async function load(name: string, component: string): Promise<ComponentType<{ initial?: unknown }>> {
  const { outputFiles } = await build({
    entryPoints: [join(place, name)],
    alias: LIBRARY,
    external: ['react', 'react/*'],
    jsx: 'automatic',
    bundle: true,
    format: 'cjs',
    write: false,
  });
  const module = { exports: {} as Record<string, ComponentType> };
  new Function('require', 'module', outputFiles[0]!.text)(createRequire(import.meta.url), module);
  return module.exports[component]!;
}

/** Draws until the page says that. */
async function says(page: HTMLElement, text: string): Promise<void> {
  for (const end = performance.now() + DEADLINE_MS; page.textContent !== text; ) {
    if (performance.now() > end) throw new Error(`still waiting for "${text}" instead of "${page.textContent}"`);
    await act(() => new Promise((resolve) => setTimeout(resolve, 5)));
  }
}

function serve(): MockRealtimeServer {
  const server = new MockRealtimeServer();
  vi.stubGlobal('WebSocket', server.WebSocket);
  return server;
}

/** An event of the row with that number, for everybody. */
const order = (id: number) => ({ type: 'order', op: 'insert', key: { id }, row: { status: `new ${id}` } });

it('their types are right', async () => {
  expect([...recipes.keys()]).toEqual(['app.tsx', 'page.tsx', 'orders.tsx']);
  const paths = Object.fromEntries(Object.entries(LIBRARY).map(([name, path]) => [name, [path]]));
  const how = { strict: true, noEmit: true, jsx: 'react-jsx', skipLibCheck: true, types: ['react'], lib: ['ES2023', 'DOM'] };
  const compilerOptions = { ...how, target: 'ES2022', module: 'ESNext', moduleResolution: 'bundler', paths };
  writeFileSync(join(place, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: [...recipes.keys()] }));
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  // It ends with 1 and says on stdout what is wrong.
  const { stdout } = await promisify(execFile)(process.execPath, [tsc, '-p', place]).catch((error) => error);
  expect(stdout).toBe('');
});

it('login and logout: after a logout another login goes on, and a session that is ended elsewhere is noticed', async () => {
  const server = serve();
  const App = await load('app.tsx', 'App');
  const page = document.createElement('div');
  const drawn = createRoot(page);
  const click = () => act(async () => page.querySelector('button')!.click());
  await act(async () => drawn.render(<App />));
  await says(page, 'Log in');
  await click();
  await says(page, 'live, 0 ordersLog out');
  server.emit(order(1));
  await says(page, 'live, 1 ordersLog out');
  await click();
  await says(page, 'Log in');
  await until(() => server.connections.size === 0, 'the end of the connection');
  await click();
  await says(page, 'live, 0 ordersLog out');
  Object.assign(globalThis, { token: null });
  server.close(4001);
  await says(page, 'Log in');
  await act(async () => drawn.unmount());
});

it('a page that the server has rendered goes on from the cursor of its state, and fetches only after a reset', async () => {
  const server = serve();
  const fetched = vi.fn(async () => Response.json({ state: [{ id: 9, status: 'fetched' }], cursor: server.cursor }));
  vi.stubGlobal('fetch', fetched);
  Object.assign(globalThis, { token: 'alice' });
  const Orders = await load('orders.tsx', 'Orders');
  server.emit(order(1));
  const page = document.createElement('div');
  const content: ReactNode = <Orders initial={{ state: [{ id: 1, status: 'new 1' }], cursor: server.cursor }} />;
  page.innerHTML = renderToString(content);
  expect(page.textContent).toBe('new 1');
  // Between the server's reading and the client's connection.
  server.emit(order(2));
  const wrongs: unknown[] = [];
  const drawn = await act(async () => hydrateRoot(page, content, { onRecoverableError: (error) => wrongs.push(error) }));
  await says(page, 'new 1new 2');
  server.emit(order(3));
  await says(page, 'new 1new 2new 3');
  expect(fetched).not.toHaveBeenCalled();
  server.reset('truncated');
  await says(page, 'fetched');
  expect(wrongs).toEqual([]);
  await act(async () => drawn.unmount());
});
