// The real service for the tests: on a free port, with a private PostgreSQL in a directory of its own.

import { execFile, spawn } from 'node:child_process';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const repository = fileURLToPath(new URL('../../../', import.meta.url));
const program = process.env.HUSHNET_REALTIME_BIN ?? join(repository, 'target/debug/hushnet-realtime');
/** Without settings that are meant for another service; one that it does not know is an error to it. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(HUSHNET_.*|DATABASE_URL)$/.test(name)),
);
/** How long anything may take before a test fails: minutes, since the machine may be busy. */
export const DEADLINE_MS = 300_000;

/** Runs the program to its end and returns what it printed. */
export async function ask(...args) {
  const { stdout } = await promisify(execFile)(program, args, { env });
  return stdout.trim();
}

/** Starts `run`, with the demo users. */
export async function startRun() {
  const directory = await mkdtemp(join(tmpdir(), 'hushnet-console-'));
  // As root, PostgreSQL runs as an account of its own and has to get in.
  await chmod(directory, 0o755);
  const clear = () => rm(directory, { recursive: true, force: true });
  const service = await start(['run', '--directory', directory]).catch(async (error) => {
    await clear();
    throw error;
  });
  return {
    ...service,
    databaseUrl: () => databaseUrl(directory),
    /** Inserts the rows of a message, as the application would. */
    send: (from, to, text) =>
      ask('demo', 'send', '--directory', directory, '--from', from, '--to', to, text),
    async stop() {
      await service.stop();
      await clear();
    },
  };
}

/** Starts `serve` on a database that is there. */
export function startServe(databaseUrl, ...args) {
  return start(['serve', '--console', '--database-url', databaseUrl, ...args]);
}

async function start(args) {
  const all = [...args, '--listen', '127.0.0.1:0', '--log', 'warn'];
  const child = spawn(program, all, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  let said = '';
  const url = await new Promise((resolve, reject) => {
    const giveUp = (why) => reject(new Error(`${program} ${args.join(' ')}: ${why}\n${said}`));
    const timer = setTimeout(() => giveUp('does not say where it serves'), DEADLINE_MS);
    const listen = (chunk) => {
      said += chunk;
      const found = /serving on (\S+)/.exec(said);
      if (!found) return;
      clearTimeout(timer);
      resolve(found[1]);
    };
    child.stdout.on('data', listen);
    child.stderr.on('data', listen);
    child.once('error', giveUp);
    void ended.then((code) => giveUp(`ended with ${code}`));
  });
  return {
    url,
    async stop() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** Where PostgreSQL listens, by its own file. */
async function databaseUrl(directory) {
  const lines = (await readFile(join(directory, 'data/postmaster.pid'), 'utf8')).split('\n');
  return `postgres://hushnet@localhost:${lines[3]}/hushnet?host=${encodeURIComponent(lines[4])}`;
}
