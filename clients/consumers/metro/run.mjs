// Runs the bundles with the globals that React Native has on a phone, and no others: no `location`, `localStorage`,
// `indexedDB`, `BroadcastChannel`, `navigator.locks` or `addEventListener`.

import { deepStrictEqual } from 'node:assert';
import { readFileSync } from 'node:fs';
import { createContext, runInContext } from 'node:vm';

const EXPECTED = {
  hooks: ['function', 'function'],
  ids: [1, 2, 3],
  errors: [[true, 'frame']],
  urls: ['', '&since=1-1'].map(
    (since) => `wss://example.org:8443/before/ws?user_id=bob&kinds=message%2C%C3%A9${since}&tenant=blue`,
  ),
  refused: [true, true, true],
  read: { rows: [{ id: 'first' }], cursor: '1-3', more: true },
  state: { status: 'closed', reason: 'closed' },
  relative: 'unsupported',
  storeless: 'store',
  life: ['live', 'paused', 4, 5, 'live', 'paused', 6],
};

for (const name of ['exports', 'files']) {
  const seen = await new Promise((resolve, reject) => {
    const { console, setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, queueMicrotask } = globalThis;
    const globals = { console, setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, queueMicrotask };
    // The native modules, of which this phone has none.
    Object.assign(globals, { nativeModuleProxy: {} });
    const performance = { now: () => globalThis.performance.now() };
    const context = createContext({ ...globals, performance, navigator: { product: 'ReactNative' }, seen: resolve });
    runInContext('globalThis.global = globalThis.window = globalThis.self = globalThis; delete globalThis.WebAssembly', context);
    process.on('unhandledRejection', reject);
    runInContext(readFileSync(`dist/${name}.js`, 'utf8'), context, { filename: `dist/${name}.js` });
  });
  // What comes from the context has its prototypes.
  deepStrictEqual(JSON.parse(JSON.stringify(seen)), EXPECTED);
}
process.exit(0);
