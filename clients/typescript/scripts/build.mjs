// Builds dist/: one file of JavaScript for each entry point by esbuild, the types by tsc.

import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);

// Names that are between the library's own files, and in no type that it exports: they are shortened, for
// a user's bundler cannot know that it may. Those of the wire, the platform and the options stay out.
const INTERNAL = [
  'accept', 'arrived', 'become', 'done', 'drop', 'endpoints', 'events', 'extend', 'forget', 'hand',
  'http', 'idle', 'isOver', 'isRenewable', 'leave', 'move', 'onEnd', 'onFailed', 'onFrame',
  'onHandled', 'probe', 'prover', 'relayed', 'remainingMs', 'renew', 'report', 'socket',
  'stop', 'store', 'subprotocols',
];

rmSync(join(root, 'dist'), { recursive: true, force: true });
await build({
  absWorkingDir: root,
  entryPoints: ['src/index.ts', 'src/react.ts', 'src/testing.ts'],
  outdir: 'dist',
  bundle: true,
  // What the entries share is there once: an error class must be the same in all of them.
  splitting: true,
  // Constants where they are used; names stay, for who reads it in a debugger.
  minifySyntax: true,
  format: 'esm',
  target: 'es2022',
  external: ['react'],
  sourcemap: true,
  mangleProps: new RegExp(`^(${INTERNAL.join('|')})$`),
});
const tsc = join(dirname(require.resolve('typescript/package.json')), 'bin/tsc');
execFileSync(process.execPath, [tsc, '--emitDeclarationOnly'], { cwd: root, stdio: 'inherit' });
