// Renders the build for servers in Node, and runs the one for pages in a page.

import { readFileSync, readdirSync } from 'node:fs';
import { Window } from 'happy-dom';

const { html } = await import('./dist/server/server.js');
if (html !== '<p>closed 0</p>') throw new Error(`rendered on a server: ${html}`);

const [script] = readdirSync('dist/assets').filter((name) => name.endsWith('.js'));
const text = readFileSync(`dist/assets/${script}`, 'utf8');
// What the application does not import is left out.
for (const unused of ['onupgradeneeded', 'no client is connected']) {
  if (text.includes(unused)) throw new Error(`the page's build has "${unused}"`);
}
const opened = [];
class WebSocket {
  readyState = 0;
  constructor(address) {
    opened.push(address);
    queueMicrotask(() => {
      this.onmessage({ data: '{"type":"hello","cursor":"1-0","heartbeat_ms":25000,"resumed":false}' });
      this.onmessage({ data: '{"type":"message","user_id":"bob","id":1,"chat_id":null}' });
    });
  }
  send() {}
  close() {}
}
const window = new Window({ url: 'https://page.example/chat', settings: { enableJavaScriptEvaluation: true } });
Object.assign(window, { WebSocket });
window.document.body.innerHTML = '<div id="root"></div>';
window.eval(`(() => {${text}})()`);
const root = window.document.getElementById('root');
const end = performance.now() + 120_000;
while (root.textContent !== 'live 1') {
  if (performance.now() > end) throw new Error(`the page shows "${root.textContent}"`);
  await new Promise((resolve) => setTimeout(resolve, 10));
}
if (opened[0] !== 'wss://page.example/realtime/ws?user_id=bob') throw new Error(`opened ${opened[0]}`);
process.exit(0);
