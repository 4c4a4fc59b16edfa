// Installs the library, as it is packed, in real projects, and runs their tests: node run.mjs [NAME...]
//
// - Each folder beside this file is a project of a user: its package.json has exact versions and a lockfile, and its script
//   `test` does what that user does.
// - No project names the library among its dependencies: a lockfile would pin the tarball's checksum, which changes with
//   each change of the library. `npm ci` installs the others, then the tarball is unpacked beside them, which is all that
//   npm does with a package without dependencies.
// - Everything is copied to a temporary directory first. Nothing is written in the checkout.
// - Prints `ok NAME (n s)`, `left out NAME: why` where the script `test` ends with 77, or `FAILS NAME` after what was
//   printed. Ends with 1 if any fails, with 2 for a mistake of the caller's.
//
// LIBRARY names a tarball to try instead of this checkout's library.

import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** For one command. A machine that is busy with other things needs several times what a quiet one does. */
const COMMAND_TIMEOUT_MS = 15 * 60_000;
const EXIT_LEFT_OUT = 77;

const here = fileURLToPath(new URL('.', import.meta.url));
const known = readdirSync(here).filter((name) => existsSync(join(here, name, 'package.json')));
const names = process.argv.length > 2 ? process.argv.slice(2) : known;
const mistake = (text) => {
  console.error(text);
  process.exit(2);
};
for (const name of names) if (!known.includes(name)) mistake(`there is no project ${name}; there are ${known.join(', ')}`);

const work = mkdtempSync(join(tmpdir(), 'realtime-consumers-'));
let running;
process.on('exit', () => {
  // A group of its own: npm's children end with it.
  if (running) try { process.kill(-running.pid, 'SIGKILL'); } catch { /* It has ended. */ }
  rmSync(work, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(130));

const temporary = join(work, 'tmp');
mkdirSync(temporary);
// What the tools would write elsewhere, or send. A caller's NODE_ENV is not theirs, and npm's own variables are not ours.
const env = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_(?!config_)|NODE_ENV$|NODE_OPTIONS$|INIT_CWD$)/.test(name))),
  CI: '1', NEXT_TELEMETRY_DISABLED: '1', DENO_NO_UPDATE_CHECK: '1', DO_NOT_TRACK: '1', NO_COLOR: '1',
  TMPDIR: temporary, XDG_CACHE_HOME: temporary, XDG_CONFIG_HOME: temporary, XDG_DATA_HOME: temporary, DENO_DIR: temporary,
};

class Failed extends Error {
  constructor(status, output) {
    super(output);
    this.status = status;
  }
}

/** The end of what a command has printed; the lines of a bundle are cut. */
const shortened = (output) => output.trimEnd().split('\n').slice(-60).map((line) => line.slice(0, 300)).join('\n');

/** What the command has printed. Rejects with `Failed` if it does not end with 0 in time. */
function run(cwd, program, ...args) {
  return new Promise((done, failed) => {
    const child = spawn(program, args, { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    running = child;
    let output = '';
    const timer = setTimeout(() => {
      output += `${program} ${args.join(' ')} did not end within ${COMMAND_TIMEOUT_MS / 60_000} minutes\n`;
      process.kill(-child.pid, 'SIGKILL');
    }, COMMAND_TIMEOUT_MS);
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
    child.on('error', (error) => failed(new Failed(1, `${program}: ${error.message}\n`)));
    child.on('close', (status) => {
      clearTimeout(timer);
      running = undefined;
      if (status === 0) done(output);
      else failed(new Failed(status, output || `${program} ${args.join(' ')} ended with ${status}\n`));
    });
  });
}

const install = (cwd) => run(cwd, 'npm', 'ci', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error');

/** Copies a folder of the checkout as a fresh clone has it. */
function copy(from, to) {
  const built = new Set(['node_modules', 'dist', '.next', 'react', 'testing', 'react-native'].map((name) => join(from, name)));
  cpSync(from, to, { recursive: true, filter: (path) => !built.has(path) });
}

/** The library as npm would publish it. */
async function pack() {
  if (process.env.LIBRARY) return resolve(process.env.LIBRARY);
  const library = join(work, 'library');
  copy(join(here, '../typescript'), library);
  await install(library);
  await run(library, 'node', 'scripts/build.mjs');
  await run(library, 'npm', 'pack', '--ignore-scripts', '--loglevel=error', '--pack-destination', work);
  return join(work, readdirSync(work).find((name) => name.endsWith('.tgz')));
}

function checkNode(name) {
  const { engines } = JSON.parse(readFileSync(join(here, name, 'package.json'), 'utf8'));
  const numbers = (version) => version.match(/\d+/g).map(Number);
  const [wanted, found] = [numbers(engines.node), numbers(process.versions.node)];
  const at = wanted.findIndex((number, index) => number !== found[index]);
  if (at >= 0 && wanted[at] > found[at]) throw new Failed(1, `needs Node ${engines.node}; this is ${process.versions.node}\n`);
}

async function consume(name, tarball) {
  checkNode(name);
  const project = join(work, name);
  copy(join(here, name), project);
  await install(project);
  const library = join(project, 'node_modules/@hushnet/realtime');
  mkdirSync(library, { recursive: true });
  await run(library, 'tar', '-xzf', tarball, '--strip-components=1', '--no-same-owner');
  await run(project, 'npm', 'test', '--silent');
  rmSync(project, { recursive: true, force: true });
}

let tarball;
try {
  tarball = await pack();
} catch (error) {
  mistake(`the library cannot be packed:\n${shortened(error.message)}`);
}
for (const name of names) {
  const begun = performance.now();
  try {
    await consume(name, tarball);
    console.log(`ok ${name} (${Math.round((performance.now() - begun) / 1000)} s)`);
  } catch (error) {
    if (error.status === EXIT_LEFT_OUT) console.log(`left out ${name}: ${error.message.trim()}`);
    else {
      console.log(`${shortened(error.message)}\nFAILS ${name}`);
      process.exitCode = 1;
    }
  }
}
