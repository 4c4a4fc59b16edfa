// Builds dist/ for each entry of package.json's `exports`: JavaScript by esbuild, types by tsc. dist/ has ES modules, dist/cjs
// has CommonJS.
//
// - Why CommonJS: Jest, and Node before 20.19, cannot load an ES module by `require`. A program that loads both formats has
//   the library twice: `instanceof` holds within one format.
// - Why dist/cjs is made from dist/, file by file: what several entries use is one file in each format, so that an error
//   has the same class in all entries of the format.
// - Why a folder with a package.json and not `.cjs` and `.d.cts`: the files keep their names, and no import is rewritten.
// - Why react/package.json and the like: TypeScript's node10 and React Native before 0.79 do not read `exports`, and look
//   for a folder of the entry's name.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);

// Names that are between the library's own files, and in no type that it exports: they are shortened, for
// a user's bundler cannot know that it may. Those of the wire, the platform and the options stay out.
const INTERNAL = [
  'abandon', 'accept', 'acknowledge', 'arrived', 'askedAt', 'become', 'begin', 'better', 'block', 'change',
  'count', 'cursorOf', 'done', 'drop', 'endpoints', 'entered', 'events', 'extend', 'forget', 'group', 'hand',
  'handled', 'hide', 'http', 'hurry', 'idle', 'isAlone', 'isDue', 'isExact', 'isLeading', 'isLost',
  'isOver', 'isRenewable', 'isThere', 'keeper', 'leader', 'leave', 'loops', 'mark', 'mayKeep', 'maySave',
  'move', 'moves', 'note', 'onAlone', 'onEnd', 'onFailed', 'onFollow', 'onFrame', 'onHandled', 'onHeld',
  'onJoined', 'onKinds', 'onLead', 'onProgress', 'onSilent', 'onState', 'onTaken', 'onTick', 'part',
  'positionAt', 'positionHere', 'probe', 'prover', 'reaches', 'ready', 'record', 'remainingMs', 'renew',
  'report', 'resign', 'rewind', 'saveSoon', 'settle', 'share', 'show', 'socket', 'stop', 'store', 'stray',
  'subject', 'subprotocols', 'tell', 'termKept', 'unhandled', 'worse',
];

const write = (path, value) => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), `${JSON.stringify(value, null, 2)}\n`);
};
/** The entries' names, as `react`, without that of the package itself and of its package.json. */
const subpaths = Object.keys(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).exports)
  .map((path) => path.slice('./'.length))
  .filter((name) => name && name !== 'package.json');

rmSync(join(root, 'dist'), { recursive: true, force: true });
const common = { absWorkingDir: root, target: 'es2022', sourcemap: true };
await build({
  ...common,
  entryPoints: ['index', ...subpaths].map((name) => `src/${name}.ts`),
  outdir: 'dist',
  format: 'esm',
  bundle: true,
  // What the entries share is there once: an error class must be the same in all of them.
  splitting: true,
  // Constants where they are used; names stay, for who reads it in a debugger.
  minifySyntax: true,
  external: ['react'],
  mangleProps: new RegExp(`^(${INTERNAL.join('|')})$`),
});
await build({
  ...common,
  entryPoints: readdirSync(join(root, 'dist')).filter((name) => name.endsWith('.js')).map((name) => `dist/${name}`),
  outdir: 'dist/cjs',
  format: 'cjs',
  // Writes the exported names down where Node finds them, for an ES module that imports CommonJS.
  platform: 'node',
});
write('dist/cjs/package.json', { type: 'commonjs', sideEffects: false });

// Next takes a module with hooks for one of the page's alone by its first words.
for (const path of ['dist/react.js', 'dist/cjs/react.js']) {
  writeFileSync(join(root, path), `'use client';${readFileSync(join(root, path), 'utf8')}`);
}

const tsc = join(dirname(require.resolve('typescript/package.json')), 'bin/tsc');
for (const outDir of ['dist', 'dist/cjs']) {
  execFileSync(process.execPath, [tsc, '--emitDeclarationOnly', '--outDir', outDir], { cwd: root, stdio: 'inherit' });
}

for (const name of subpaths) {
  write(`${name}/package.json`, {
    main: `../dist/cjs/${name}.js`,
    module: `../dist/${name}.js`,
    types: `../dist/cjs/${name}.d.ts`,
    sideEffects: false,
  });
}
