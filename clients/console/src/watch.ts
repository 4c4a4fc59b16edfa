/** One user's stream as the page watches it, from "Connect" to "Disconnect". */

import {
  type ClientState,
  type CursorStore,
  type Place,
  type RealtimeEvent,
  RealtimeClient,
  RealtimeError,
} from '../../typescript/src/index.ts';
import { type Identity, Reader, type ServerNode, type Stats } from './api.ts';
import { ClockOffset, nowMs } from './clock.ts';
import { WrittenTimes } from './latency.ts';
import { Tap } from './tap.ts';

/** Events that the page shows. */
export const EVENTS_MAX = 200;
/** How long "Break the link" keeps the link broken. */
export const CUT_MS = 3_000;
/** A person is waiting, so the page comes back sooner than a program would. */
const BACKOFF = { firstMs: 500, longestMs: 4_000 };
const STATS_INTERVAL_MS = 1_000;
/** A node says what it is every two seconds. */
const NODES_INTERVAL_MS = 2_000;
/** Requests at the start, one after the other: the first ones are slow and say little about the clocks. */
const CLOCK_QUESTIONS = 5;

/** An event as it is shown. */
export interface Shown {
  readonly event: RealtimeEvent;
  readonly atMs: number;
  readonly replayed: boolean;
  /** When its row was created, by the database's clock; known later. */
  writtenMs?: number;
}

/** What is counted since "Connect". */
export interface Counts {
  readonly events: number;
  readonly replayed: number;
  readonly repeats: number;
  readonly reconnects: number;
  readonly resets: number;
}

export interface WatchOwner {
  /** `counts`, `events` or `cursor` have changed. */
  changed(): void;
  state(state: ClientState): void;
  /** An error that the library reports, whether or not it then closes. */
  error(error: RealtimeError): void;
  /** Once a second. An error is a `Refusal`, or what `fetch` rejects with. */
  stats(stats: Stats | Error): void;
  /** Every two seconds. */
  nodes(nodes: readonly ServerNode[]): void;
  /** The time at which the event's row was created is known. */
  written(shown: Shown): void;
}

export class Watch {
  readonly clock = new ClockOffset();
  /** Newest first. */
  readonly events: Shown[] = [];
  private readonly tap = new Tap();
  private readonly client: RealtimeClient;
  private readonly times: WrittenTimes;
  private readonly reader: Reader;
  private isOver = false;
  private handled = 0;
  private reconnects = 0;
  private resets = 0;

  /** Nothing happens before `start`. */
  constructor(
    base: URL,
    identity: Identity,
    /** The user for whom the position in the stream is kept. */
    user: string,
    private readonly owner: WatchOwner,
  ) {
    this.reader = new Reader(base, identity);
    this.times = new WrittenTimes(this.reader);
    this.client = new RealtimeClient({
      url: base,
      ...('token' in identity ? { getToken: () => identity.token } : identity),
      cursorStore: tabStore(user),
      backoff: BACKOFF,
      WebSocket: this.tap.WebSocket,
    });
    this.client.on('reset', () => {
      // The page holds no state that would have to be fetched anew.
      this.resets++;
      owner.changed();
    });
    this.client.on('error', (error) => owner.error(error));
    this.client.on('state', (state) => {
      if (state.status === 'reconnecting' && state.attempt === 1) this.reconnects++;
      owner.state(state);
      owner.changed();
    });
  }

  get counts(): Counts {
    return {
      events: this.handled,
      replayed: this.tap.replayed,
      repeats: Math.max(0, this.tap.eventsSeen - this.handled),
      reconnects: this.reconnects,
      resets: this.resets,
    };
  }

  get cursor(): string | null {
    return this.tap.cursor;
  }

  get isCut(): boolean {
    return this.tap.isCut;
  }

  /**
   * Asks for the figures first and rejects with their `Refusal`: a browser does not let a page read why a WebSocket
   * was refused.
   */
  async start(): Promise<void> {
    await this.readStats();
    if (this.isOver) return;
    void this.listen();
    void this.poll();
    void this.pollNodes();
  }

  /** Why the service refuses this client: the answer to a request says more than a close code. */
  async explain(): Promise<unknown> {
    try {
      await this.reader.stats();
    } catch (error) {
      return error;
    }
  }

  stop(): void {
    this.isOver = true;
    void this.client.close();
  }

  breakLink(): void {
    this.tap.cut(CUT_MS);
  }

  /** Milliseconds from the row's creation to the event's arrival; `undefined` while that is not known. */
  latencyMs({ atMs, writtenMs }: Shown): number | undefined {
    if (writtenMs === undefined) return undefined;
    return Math.max(0, this.clock.toTheirs(atMs) - writtenMs);
  }

  /** Connects, and shows the events of every kind until the client is closed. */
  private async listen(): Promise<void> {
    try {
      for await (const event of this.client) this.add(event);
    } catch (error) {
      // Why the client is closed, its state says.
      if (!(error instanceof RealtimeError)) throw error;
    }
  }

  private add(event: RealtimeEvent): void {
    const arrival = this.tap.takeArrival(event.id);
    const shown: Shown = {
      event,
      atMs: arrival?.atMs ?? nowMs(),
      replayed: arrival?.replayed ?? false,
    };
    this.handled++;
    this.events.unshift(shown);
    if (this.events.length > EVENTS_MAX) this.events.pop();
    this.times.ask(event.id, arrival, (writtenMs) => {
      shown.writtenMs = writtenMs;
      if (this.isOver) return;
      this.owner.written(shown);
      this.owner.changed();
    });
    this.owner.changed();
  }

  private async readStats(): Promise<void> {
    const stats = await this.askStats();
    if (!this.isOver) this.owner.stats(stats);
  }

  private async askStats(): Promise<Stats> {
    const askedMs = nowMs();
    const stats = await this.reader.stats();
    this.clock.add(askedMs, nowMs(), stats.now_ms);
    return stats;
  }

  private async pollNodes(): Promise<void> {
    while (!this.isOver) {
      // The figures say what is wrong with the service.
      const nodes = await this.reader.nodes().catch(() => []);
      if (!this.isOver) this.owner.nodes(nodes);
      await new Promise((resolve) => setTimeout(resolve, NODES_INTERVAL_MS));
    }
  }

  private async poll(): Promise<void> {
    for (let asked = 0; asked < CLOCK_QUESTIONS; asked++) await this.askStats().catch(() => {});
    while (!this.isOver) {
      await new Promise((resolve) => setTimeout(resolve, STATS_INTERVAL_MS));
      try {
        if (!this.isOver) await this.readStats();
      } catch (error) {
        if (!this.isOver) this.owner.stats(error as Error);
      }
    }
  }
}

/**
 * Keeps this tab's position in the stream over a reload. The library's own stores are shared between tabs; this one
 * is not, so that each tab of the console gets every event.
 */
function tabStore(user: string): CursorStore {
  const key = `hushnet-realtime:console:${user}`;
  return {
    load: () => JSON.parse(sessionStorage.getItem(key) ?? 'null') as Place | null,
    save: ({ cursor, ids, idsBefore }) =>
      sessionStorage.setItem(key, JSON.stringify({ cursor, ids, idsBefore })),
    clear: () => sessionStorage.removeItem(key),
  };
}
