import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { expect, it } from 'vitest';

/** What the main entry may cost a page, minified and gzipped. */
const BYTES_MAX = 5_504;

it('the main entry is at most 5.375 KB', async () => {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('../../dist/index.js', import.meta.url))],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
  });
  const bytes = gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
  console.info(`main entry: ${bytes} bytes minified and gzipped`);
  expect(bytes).toBeLessThanOrEqual(BYTES_MAX);
});
