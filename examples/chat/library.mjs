// Builds the client library if that has not been done: npm only links it.

import { execSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const library = new URL('../../clients/typescript/', import.meta.url);
if (!existsSync(new URL('dist/react.js', library))) {
  execSync('npm ci --no-audit --no-fund', { cwd: fileURLToPath(library), stdio: 'inherit' });
}
