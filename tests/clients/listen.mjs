// Connects with the `ws` library and prints each frame: listen.mjs URL COUNT.
import WebSocket from "ws";

const [url, count] = process.argv.slice(2);
let left = Number(count);
const socket = new WebSocket(url);
socket.on("open", () => console.log("connected"));
socket.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
socket.on("message", (data) => {
  console.log(data.toString());
  left -= 1;
  if (left === 0) socket.close();
});
