/**
 * A server of the protocol without a network, for tests of what uses the client. It keeps a log, so that
 * a client which comes back with a cursor is sent what it has missed.
 */

import type { EventKinds, KindName, ResetEvent, WebSocketConstructor } from './types.js';

/** The settings of a `MockRealtimeServer`. */
export interface MockOptions {
  /** What hello says, in ms. The mock itself has no clock: see `heartbeat()`. Default: 25,000. */
  readonly heartbeatMs?: number;
  /** Whether there is a log: ids and cursors. Default: true. */
  readonly log?: boolean;
}

/** Each form of an event, without what the server adds. */
type Sent<Event> = Event extends unknown ? Omit<Event, 'id' | 'cursor' | 'user_id'> : never;

/** An event to send, without what the server adds; without `user_id` it is for everybody. */
export type MockEvent<T extends string = string, Events extends object = EventKinds> = {
  readonly type: T;
  readonly user_id?: string;
} & (T extends keyof Events ? Sent<Events[T]> : { readonly [field: string]: unknown });

/** What a read of state is answered with. */
export interface MockAnswer {
  /** Default: 200. */
  readonly status?: number;
  readonly body: unknown;
  readonly more?: boolean;
  readonly headers?: Record<string, string>;
}

interface Logged {
  readonly id: number;
  readonly event: MockEvent;
}

type Listener = ((event: never) => void) | null;

/** One WebSocket of a client, seen from the server. */
export class MockConnection {
  /** What the client has sent, parsed. */
  readonly received: unknown[] = [];
  /** 0 connecting, 1 open, 3 closed, as a WebSocket's. */
  readyState: 0 | 1 | 3 = 0;
  onopen: Listener = null;
  onmessage: Listener = null;
  onclose: Listener = null;
  onerror: Listener = null;
  private outgoing: Promise<unknown> = Promise.resolve();

  /** Made by the client. */
  constructor(
    private readonly server: Pick<MockRealtimeServer, 'admit' | 'connections' | 'isSilent'>,
    readonly url: string,
    readonly protocols: readonly string[],
  ) {
    this.later(() => server.admit(this));
  }

  /** The query of the URL: `user_id`, `kinds` and `since`. */
  get query(): URLSearchParams {
    return new URL(this.url).searchParams;
  }

  /** The client's. */
  send(data: string): void {
    const frame = JSON.parse(data) as { type?: string };
    this.received.push(frame);
    if (frame.type === 'ping' && !this.server.isSilent) this.frame({ type: 'pong' });
  }

  /** The client's. */
  close(code = 1000): void {
    this.end(code);
  }

  /** Sends a frame: an object, or a text as it is. */
  frame(frame: object | string): void {
    const data = typeof frame === 'string' ? frame : JSON.stringify(frame);
    this.later(() => {
      if (this.readyState === 1) this.onmessage?.({ data } as never);
    });
  }

  /** Opens the socket. The mock's own. */
  open(): void {
    if (this.readyState !== 0) return;
    this.readyState = 1;
    this.onopen?.({} as never);
  }

  /** Closes the socket from the server's side, when what was sent before has arrived. */
  end(code: number, reason = ''): void {
    this.later(() => {
      if (this.readyState === 3) return;
      this.readyState = 3;
      this.server.connections.delete(this);
      this.onclose?.({ code, reason, wasClean: code !== 1006 } as never);
    });
  }

  /** In order, and never before the caller has gone on: as a network does it. */
  private later(work: () => void): void {
    this.outgoing = this.outgoing.then(work);
  }
}

/**
 * The server. Give its `WebSocket` to the client, and its `fetch` if state is read:
 *
 * ```ts
 * const server = new MockRealtimeServer();
 * const client = new RealtimeClient({ url: 'ws://mock', userId, WebSocket: server.WebSocket });
 * await client.connect();
 * server.emit({ type: 'message', chat_id: null });
 * ```
 *
 * `Events` has the kinds whose fields are checked when they are sent: give it what the client is given.
 */
export class MockRealtimeServer<Events extends object = EventKinds> {
  /** Given to a client as its option `WebSocket`. */
  readonly WebSocket: WebSocketConstructor;
  /** Given to a client as its option `fetch`; answers with what `answer` was told. */
  readonly fetch: typeof globalThis.fetch;
  /** Those that are open. */
  readonly connections = new Set<MockConnection>();
  /** How many there have been, refused ones included. */
  connects = 0;
  /** Whether pings go unanswered. */
  isSilent = false;
  private readonly heartbeatMs: number;
  private readonly hasLog: boolean;
  private readonly log: Logged[] = [];
  private readonly answers = new Map<string, MockAnswer>();
  private refusals: number[] = [];
  private oldest = 0;
  private readonly epoch = 1;

  constructor({ heartbeatMs = 25_000, log = true }: MockOptions = {}) {
    this.heartbeatMs = heartbeatMs;
    this.hasLog = log;
    const server = this;
    this.WebSocket = class extends MockConnection {
      constructor(url: string, protocols: string[]) {
        super(server, url, protocols);
      }
    };
    this.fetch = (input) => this.respond(new URL(input instanceof Request ? input.url : input));
  }

  /** The newest connection. Throws if none is open. */
  get connection(): MockConnection {
    const newest = [...this.connections].at(-1);
    if (!newest) throw new Error('no client is connected');
    return newest;
  }

  /** The present cursor; `null` without a log. */
  get cursor(): string | null {
    return this.hasLog ? `${this.epoch}-${this.log.length}` : null;
  }

  /** Commits an event: it is in the log, and sent to whom it is for. Returns its id. */
  emit<T extends KindName<Events>>(event: MockEvent<T, Events>): number {
    const logged = { id: this.log.length + 1, event: event as unknown as MockEvent };
    this.log.push(logged);
    for (const connection of this.connections) this.deliver(connection, logged, true);
    return logged.id;
  }

  /** Sends each connection its cursor, as the server does when a client has been silent. */
  heartbeat(): void {
    this.broadcast({ type: 'cursor', cursor: this.cursor });
  }

  /** Tells each connection that its state has to be fetched anew. */
  reset(reason: ResetEvent['reason']): void {
    this.broadcast({ type: 'reset', reason, cursor: this.cursor });
  }

  /** Forgets the log up to now: who comes back with an older cursor is told `retention`. */
  expire(): void {
    this.oldest = this.log.length;
  }

  /** Tells each connection that the server is ending. Close them with 1012 when their time is over. */
  goaway(retryAfterMs: number): void {
    this.broadcast({ type: 'goaway', retry_after_ms: retryAfterMs });
  }

  /** Closes each connection with this code; 1006 is a lost network. */
  close(code: number, reason = ''): void {
    for (const connection of this.connections) connection.end(code, reason);
  }

  /** Refuses the next connection with this close code; call it again for the one after. */
  refuse(code: number): void {
    this.refusals.push(code);
  }

  /** Sends each connection a frame: an object, or a text as it is. */
  broadcast(frame: object | string): void {
    for (const connection of this.connections) connection.frame(frame);
  }

  /** What the next reads of this path are answered with, as `/messages/pending/<device>`. */
  answer(path: string, answer: MockAnswer): void {
    this.answers.set(path, answer);
  }

  /** Takes a new connection. The mock's own. */
  admit(connection: MockConnection): void {
    this.connects++;
    if (connection.readyState !== 0) return;
    const refusal = this.refusals.shift();
    if (refusal !== undefined) return connection.end(refusal);
    connection.open();
    this.connections.add(connection);
    this.greet(connection);
  }

  private greet(connection: MockConnection): void {
    const since = connection.query.get('since');
    const [epoch, index] = (since ?? '').split('-').map(Number) as [number, number | undefined];
    const isGood = since !== null && this.hasLog && epoch === this.epoch && index! >= this.oldest;
    const missed = isGood ? this.log.slice(index).filter((l) => isFor(l, connection)) : [];
    connection.frame({
      type: 'hello',
      connection_id: `mock-${this.connects}`,
      cursor: isGood ? since : this.cursor,
      heartbeat_ms: this.heartbeatMs,
      resumed: isGood,
      replayed: missed.length,
    });
    if (isGood) {
      for (const logged of missed) this.deliver(connection, logged, false);
      connection.frame({ type: 'cursor', cursor: this.cursor });
    } else if (since !== null) {
      const reason = this.hasLog ? (index === undefined ? 'malformed' : 'retention') : 'no_log';
      connection.frame({ type: 'reset', reason, cursor: this.cursor });
    }
  }

  private deliver(connection: MockConnection, logged: Logged, isLive: boolean): void {
    if (!isFor(logged, connection)) return;
    const place = this.hasLog && isLive ? { cursor: `${this.epoch}-${logged.id}` } : {};
    const id = this.hasLog ? { id: logged.id } : {};
    const user_id = connection.query.get('user_id') ?? 'mock';
    connection.frame({ user_id, ...logged.event, ...id, ...place });
  }

  private async respond(url: URL): Promise<Response> {
    await null;
    const found = this.answers.get(url.pathname);
    const { status = 200, body, more = false, headers = {} } = found ?? {
      status: 404,
      body: { error: { code: 'not_found', message: `no answer for ${url.pathname}` } },
    };
    const answer = new Response(JSON.stringify(body), { status, headers });
    if (this.cursor !== null) answer.headers.set('realtime-cursor', this.cursor);
    if (more) answer.headers.set('realtime-more', 'true');
    return answer;
  }
}

function isFor({ event }: Logged, connection: MockConnection): boolean {
  const user = connection.query.get('user_id');
  const kinds = connection.query.get('kinds')?.split(',') ?? [event.type];
  return (!event.user_id || !user || event.user_id === user) && kinds.includes(event.type);
}
