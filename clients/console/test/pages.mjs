// Pages of an origin of their own that have the TypeScript library.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { build } from 'esbuild';
import { DEADLINE_MS, repository } from './service.mjs';

/** Serves a page with that script under /page, and another page. What is posted goes to `onPost`, by its path. */
export async function startPages(script, onPost = () => {}) {
  const { outputFiles } = await build({
    stdin: { contents: script, resolveDir: repository },
    bundle: true,
    write: false,
    format: 'iife',
  });
  const server = createServer((request, answer) => {
    if (request.method === 'POST') onPost(request.url);
    answer.setHeader('content-type', 'text/html; charset=utf-8');
    answer.end(request.url.startsWith('/page') ? `<script>${outputFiles[0].text}</script>` : '<p>another');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Waits for a condition, never for a time. */
export async function until(what, condition) {
  for (const end = performance.now() + DEADLINE_MS; !(await condition()); ) {
    assert.ok(performance.now() < end, `still waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
