/**
 * The page's WebSocket: the browser's own, with a look at each frame and a way to break the link.
 *
 * The library reports what a program needs. The page also shows what goes over the wire: the number of events that a
 * hello announces as a replay, and repetitions that the library drops.
 */

import type { WebSocketConstructor, WebSocketLike } from '../../typescript/src/index.ts';
import { nowMs } from './clock.ts';

/** The arrival of an event. */
export interface Arrival {
  /** By this machine's clock, in ms since 1970. */
  readonly atMs: number;
  /** A cursor from before it; `null` in a database without a log. */
  readonly since: string | null;
  /** Whether the event was replayed. */
  readonly replayed: boolean;
}

/** Arrivals that wait until the library hands out their event; more than it ever holds back. */
const ARRIVALS_MAX = 20_000;
/** The close code with which a browser reports a lost link. */
const LOST = 1006;

/** The fields of a frame that are read here (docs/protocol.md). */
interface Frame {
  readonly type?: string;
  readonly id?: number;
  readonly cursor?: string | null;
  readonly resumed?: boolean;
  readonly replayed?: number;
}

type Listener = ((event: never) => void) | null;

export class Tap {
  /** The newest cursor that was seen. */
  cursor: string | null = null;
  /** Events over the wire, repetitions included. */
  eventsSeen = 0;
  /** Events that were announced by hellos as replays. */
  replayed = 0;
  private toReplay = 0;
  private readonly arrivals = new Map<number, Arrival>();
  private readonly open = new Set<TappedSocket>();
  private cutUntilMs = 0;

  /** The constructor for the library. */
  readonly WebSocket: WebSocketConstructor;

  constructor() {
    const tap = this;
    this.WebSocket = class extends TappedSocket {
      constructor(url: string, protocols: string[]) {
        super(tap, url, protocols);
      }
    };
  }

  get isCut(): boolean {
    return nowMs() < this.cutUntilMs;
  }

  /** Breaks the connection and lets no new one through for so long. */
  cut(ms: number): void {
    this.cutUntilMs = nowMs() + ms;
    for (const socket of [...this.open]) socket.lose();
  }

  /** The arrival of this event. Returned once. */
  takeArrival(id: number | undefined): Arrival | undefined {
    if (id === undefined) return undefined;
    const arrival = this.arrivals.get(id);
    this.arrivals.delete(id);
    return arrival;
  }

  opened(socket: TappedSocket, url: string): void {
    this.open.add(socket);
    this.toReplay = 0;
    this.cursor = new URL(url).searchParams.get('since');
  }

  closed(socket: TappedSocket): void {
    this.open.delete(socket);
  }

  /** Notes a frame before the library gets it. Ignores what it cannot read: the library reports that. */
  frame(data: unknown): void {
    let frame: Frame;
    try {
      frame = JSON.parse(data as string) as Frame;
    } catch {
      return;
    }
    if (frame.type === 'hello') {
      this.toReplay = frame.replayed ?? 0;
      this.replayed += this.toReplay;
      // A resumed stream goes on from the old cursor: its replay comes after that, not after the cursor of the hello.
      if (!frame.resumed) this.cursor = frame.cursor ?? null;
      return;
    }
    if (frame.id !== undefined) this.note(frame.id);
    this.cursor = frame.cursor ?? this.cursor;
  }

  private note(id: number): void {
    this.eventsSeen++;
    const replayed = this.toReplay > 0;
    if (replayed) this.toReplay--;
    // A repetition does not change the time of the first arrival.
    if (!this.arrivals.has(id)) this.arrivals.set(id, { atMs: nowMs(), since: this.cursor, replayed });
    if (this.arrivals.size <= ARRIVALS_MAX) return;
    for (const oldest of this.arrivals.keys()) {
      this.arrivals.delete(oldest);
      break;
    }
  }
}

/** One WebSocket as the library sees it. */
class TappedSocket implements WebSocketLike {
  onopen: Listener = null;
  onmessage: Listener = null;
  onclose: Listener = null;
  onerror: Listener = null;
  private socket: WebSocket | undefined;

  constructor(
    private readonly tap: Tap,
    url: string,
    protocols: string[],
  ) {
    if (tap.isCut) {
      setTimeout(() => this.end(LOST));
      return;
    }
    const socket = (this.socket = new WebSocket(url, protocols));
    tap.opened(this, url);
    socket.onopen = (event) => this.onopen?.(event as never);
    socket.onerror = (event) => this.onerror?.(event as never);
    socket.onclose = ({ code }) => this.end(code);
    socket.onmessage = (event) => {
      tap.frame(event.data);
      this.onmessage?.(event as never);
    };
  }

  get readyState(): number {
    return this.socket?.readyState ?? WebSocket.CONNECTING;
  }

  send(data: string): void {
    this.socket?.send(data);
  }

  close(code?: number, reason?: string): void {
    this.tap.closed(this);
    this.socket?.close(code, reason);
  }

  /**
   * Ends as a lost link does: nothing more comes, and the close code is the browser's for a lost link. The service
   * does get a close frame, since a page cannot keep the browser from sending it.
   */
  lose(): void {
    const { socket } = this;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close();
    this.end(LOST);
  }

  private end(code: number): void {
    this.tap.closed(this);
    this.onclose?.({ code } as never);
  }
}
