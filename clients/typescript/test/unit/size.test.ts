import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { expect, it } from 'vitest';

/** What a page pays for these exports, minified and gzipped, in bytes at most. */
const BYTES_MAX: [string, number][] = [
  ['RealtimeClient, memoryStore', 10_240],
  ['RealtimeClient, indexedDbStore', 13_312],
];

it.each(BYTES_MAX)('%s are at most %i bytes', async (names, bytesMax) => {
  const { outputFiles } = await build({
    stdin: {
      contents: `export { ${names} } from './dist/index.js'`,
      resolveDir: fileURLToPath(new URL('../..', import.meta.url)),
    },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
  });
  const bytes = gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
  console.info(`${names}: ${bytes} bytes minified and gzipped`);
  expect(bytes).toBeLessThanOrEqual(bytesMax);
});
