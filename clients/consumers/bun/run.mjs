// Runs smoke.mjs in Bun. Ends with 77 where npm brings no Bun.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

const { platform, arch } = process;
const program = `node_modules/@oven/bun-${platform}-${arch === 'arm64' ? 'aarch64' : arch}/bin/bun`;
if (!existsSync(program)) {
  console.log(`npm brings no Bun for ${platform} on ${arch}`);
  process.exit(77);
}
process.exit(spawnSync(program, ['smoke.mjs'], { stdio: 'inherit' }).status ?? 1);
