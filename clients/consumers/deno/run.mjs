// Runs smoke.mjs in Deno, with no more rights than to read and to listen. Ends with 77 where npm brings no Deno.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

const { platform, arch } = process;
const program = `node_modules/@deno/${platform}-${arch}${platform === 'linux' ? '-glibc' : ''}/deno`;
if (!existsSync(program)) {
  console.log(`npm brings no Deno for ${platform} on ${arch}`);
  process.exit(77);
}
const args = ['run', '--no-prompt', '--allow-read=.', '--allow-net=127.0.0.1', 'smoke.mjs'];
process.exit(spawnSync(program, args, { stdio: 'inherit' }).status ?? 1);
