// Builds the page into src/http/console/, whose files the service embeds. With --check it writes nothing
// and fails if what is there differs from a fresh build.

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = new URL('..', import.meta.url);
const target = new URL('../../src/http/console/', here);
const isCheck = process.argv.includes('--check');

const bundle = async (entry, options) => {
  const { outputFiles } = await build({
    absWorkingDir: fileURLToPath(here),
    entryPoints: [entry],
    bundle: true,
    write: false,
    target: ['chrome109', 'firefox115', 'safari16.4'],
    minify: true,
    legalComments: 'none',
    charset: 'utf8',
    ...options,
  });
  return outputFiles[0].text;
};

const banner = 'Made from clients/console by npm run build: change it there.';
const files = {
  'console.html': await readFile(new URL('src/console.html', here), 'utf8'),
  'console.css': await bundle('src/console.css', { banner: { css: `/* ${banner} */` } }),
  'console.js': await bundle('src/main.ts', { format: 'esm', banner: { js: `// ${banner}` } }),
};

const stale = [];
await mkdir(target, { recursive: true });
for (const [name, text] of Object.entries(files)) {
  const path = new URL(name, target);
  const committed = await readFile(path, 'utf8').catch(() => undefined);
  if (committed === text) continue;
  if (isCheck) stale.push(fileURLToPath(path));
  else await writeFile(path, text);
}
if (stale.length > 0) {
  console.error(`not what a fresh build makes, run npm run build in clients/console:\n${stale.join('\n')}`);
  process.exit(1);
}
