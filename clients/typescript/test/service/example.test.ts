import { execFileSync, spawn } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { until } from '../support.js';
import { Service, binary, environment, temporary } from './service.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const place = temporary();
afterAll(() => rmSync(place, { recursive: true, force: true }));

it('examples/node prints state and events', async () => {
  const log: string[] = [];
  const directory = join(place, 'db');
  const service = await Service.start(['run', '--listen', '127.0.0.1:0', '--directory', directory], log);
  await until(() => log.join('').includes('user_id='), 'the demo user');
  const bob = /user_id=([0-9a-f-]{36})/.exec(log.join(''))![1]!;

  // As npm install would put it together, without a network.
  const example = join(place, 'node');
  cpSync(fileURLToPath(new URL('../../../../examples/node', import.meta.url)), example, {
    recursive: true,
    filter: (path) => !path.includes('node_modules'),
  });
  mkdirSync(join(example, 'node_modules/@hushnet'), { recursive: true });
  symlinkSync(root, join(example, 'node_modules/@hushnet/realtime'));
  symlinkSync(join(root, 'node_modules/ws'), join(example, 'node_modules/ws'));

  const child = spawn(process.execPath, ['listen.js', service.url, bob], { cwd: example });
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => (out += `${chunk}`));
  child.stderr.on('data', (chunk: Buffer) => (out += `${chunk}`));
  try {
    await until(() => out.includes('"live"'), 'the connection');
    execFileSync(binary(), ['demo', 'send', '--directory', directory, 'hello'], {
      env: environment,
    });
    await until(() => /^event \{"type":"message".*"id":\d+/m.test(out.replaceAll(' : ', ':')), 'the event');
    child.kill('SIGINT');
    await until(() => child.exitCode !== null, 'its end');
    expect(child.exitCode).toBe(0);
    expect(out).toContain('state {"status":"closed","reason":"closed"}');
  } finally {
    child.kill('SIGKILL');
    await service.end('SIGTERM');
  }
});
