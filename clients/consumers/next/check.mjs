// What `next build` has rendered: the page with the clients' states, which on a server are closed.

import { readFileSync } from 'node:fs';

const page = readFileSync('.next/server/app/index.html', 'utf8');
for (const text of ['server: closed', 'page: closed, 0 messages']) {
  if (!page.includes(text)) throw new Error(`the page has no "${text}"`);
}
