// Runs the script of examples/browser/index.html with the `ws` library in the place of the browser's
// WebSocket: browser-example.mjs SERVER USER FILE. FILE is the local storage; what the page would show is
// printed.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import WebSocket from "ws";

const [server, user, file] = process.argv.slice(2);
const page = readFileSync(new URL("../../examples/browser/index.html", import.meta.url), "utf8");
const script = page.match(/<script>([^]*)<\/script>/)[1];

const stored = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
const browser = {
  WebSocket,
  location: { search: `?${new URLSearchParams({ server, user })}` },
  localStorage: {
    getItem: (name) => stored[name] ?? null,
    setItem(name, value) {
      stored[name] = value;
      writeFileSync(`${file}.new`, JSON.stringify(stored));
      renameSync(`${file}.new`, file); // a browser's is never half written
    },
  },
  document: { getElementById: () => ({ append: (text) => process.stdout.write(text) }) },
};
new Function(...Object.keys(browser), script)(...Object.values(browser));
