/** A server for the models, whose cursors lag behind what it sends. */

import { USER } from '../support.js';

/** Seeded random numbers, from 0 to below 1. */
export function rng(seed: number) {
  let s = (seed * 2654435761) >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) | 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A server whose cursors lag behind what it sends, and that sends again what is after a cursor. */
export class Server {
  log: number[] = [];
  conns = new Set<Conn>();
  all: Conn[] = [];
  oldest = 0;
  maxOpen = 0;
  constructor(readonly rand: () => number) {}
  emit() {
    let id: number;
    do id = Math.floor(this.rand() * 2 ** (this.rand() < 0.5 ? 20 : 50));
    while (this.log.includes(id));
    this.log.push(id);
    for (const c of this.conns) c.event(this.log.length);
  }
}
/** A connection, as the WebSocket of its client. */
export class Conn {
  readyState = 0;
  onopen: any = null;
  onmessage: any = null;
  onclose: any = null;
  onerror: any = null;
  /** Positions: of the newest cursor, of what was sent when that was. */
  cursor = 0;
  sentAt = 0;
  sent = 0;
  hasGoaway = false;
  chain = Promise.resolve();
  constructor(
    readonly s: Server,
    readonly url: string,
  ) {
    s.all.push(this);
    this.later(() => this.greet());
  }
  later(f: () => void) {
    this.chain = this.chain.then(f);
  }
  send(data: string) {
    if (JSON.parse(data).type === 'ping') this.frame({ type: 'pong' });
  }
  close() {
    this.end(1000);
  }
  frame(f: object) {
    this.later(() => {
      if (this.readyState === 1) this.receive(f);
    });
  }
  /** A frame has come. */
  receive(f: object) {
    this.onmessage?.({ data: JSON.stringify(f) });
  }
  /** The other side has closed. */
  lose(code: number, reason = '') {
    this.onclose?.({ code, reason });
  }
  /** The client has died. */
  vanish() {
    this.onmessage = this.onclose = null;
    this.readyState = 3;
    this.s.conns.delete(this);
  }
  end(code: number, reason = '') {
    this.later(() => {
      if (this.readyState === 3) return;
      this.readyState = 3;
      this.s.conns.delete(this);
      this.lose(code, reason);
    });
  }
  greet() {
    if (this.readyState) return;
    if (this.s.rand() < 0.1) return this.end(1006);
    this.readyState = 1;
    this.s.conns.add(this);
    this.s.maxOpen = Math.max(this.s.maxOpen, this.s.conns.size);
    const since = new URL(this.url).searchParams.get('since');
    const from = since === null ? NaN : Number(since.slice(1));
    const good = from >= this.s.oldest;
    const at = good ? from : this.s.log.length;
    this.frame({ type: 'hello', cursor: `c${at}`, heartbeat_ms: 25_000, resumed: good });
    if (!good && since !== null) this.frame({ type: 'reset', reason: 'retention', cursor: `c${at}` });
    this.cursor = this.sent = this.sentAt = at;
    if (good) {
      for (let p = at + 1; p <= this.s.log.length; p++) this.event(p, true);
      this.sayCursor();
    }
  }
  /** The next cursor: at least what was sent when the last one was said. */
  next() {
    const min = this.sentAt;
    this.cursor = min + Math.floor(this.s.rand() * (this.sent - min + 1));
    this.sentAt = this.sent;
    return `c${this.cursor}`;
  }
  event(p: number, quiet = false) {
    this.sent = Math.max(this.sent, p);
    const id = this.s.log[p - 1];
    const cursor = !quiet && this.s.rand() < 0.4 ? this.next() : undefined;
    this.frame({ type: 'message', user_id: USER, chat_id: null, id, ...(cursor && { cursor }) });
    if (this.s.rand() < 0.1) this.frame({ type: 'message', user_id: USER, chat_id: null, id });
  }
  sayCursor() {
    this.frame({ type: 'cursor', cursor: this.next() });
  }
}

