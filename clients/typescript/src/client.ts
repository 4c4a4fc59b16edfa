/** The client as its user sees it: settings, handlers, state. What it does when connected is `run.ts`. */

import { endpointsOf } from './endpoints.js';
import type { RealtimeError } from './errors.js';
import { type Loop, loopOf } from './iterate.js';
import { proverOf } from './proof.js';
import type { Given } from './pump.js';
import { type Run, type RunOwner, startRun } from './run.js';
import { readState } from './state-reads.js';
import { memoryStore } from './stores/memory.js';
import type {
  ClientOptions,
  ClientState,
  ConnectOptions,
  Device,
  HandlerName,
  HandlerOf,
  PendingMessage,
  PendingSession,
  RealtimeEvent,
  ReadOptions,
  ResetEvent,
  StateRead,
  WebSocketConstructor,
} from './types.js';

type AnyHandler = (event: never) => Given | Promise<Given>;

/**
 * A user's events, each once. Nothing happens before `connect()`; register handlers before it, since an
 * event that nobody listens to counts as handled.
 */
export class RealtimeClient implements AsyncIterable<RealtimeEvent> {
  readonly #handlers = new Map<string, Set<AnyHandler>>();
  readonly #loops = new Set<Loop>();
  readonly #owner: RunOwner;
  #run: Run | undefined;
  #state: ClientState = { status: 'closed', reason: 'not_started' };

  /** Throws a `TypeError` for settings with which it could never connect. */
  constructor(options: ClientOptions) {
    const { cursorStore = memoryStore(), WebSocket = globalThis.WebSocket } = options;
    if (!WebSocket) {
      throw new TypeError(
        'no global WebSocket (Node has none before 22): give the option WebSocket, as from the package ws',
      );
    }
    this.#owner = {
      options,
      store: cursorStore,
      endpoints: endpointsOf(options),
      prover: proverOf(options),
      WebSocket: WebSocket as WebSocketConstructor,
      hand: (frame) => this.#hand(frame),
      relayed: (event) => this.#tell('relayed', event),
      report: (error) => this.#tell('error', error),
      become: (state) => this.#become(state),
    };
  }

  /** How the client is doing. Another object after each change, the same until then. */
  get state(): ClientState {
    return this.#state;
  }

  /**
   * Calls `handler` for each event of that name, one event at a time and in their order: the next one
   * waits until the promises of this one's handlers have ended. The handlers of `state`, `error` and
   * `relayed` are not waited for, and get no events: one whose kind has such a name goes to loops alone.
   * Returns what ends it.
   */
  on<N extends HandlerName>(name: N, handler: HandlerOf<N>): () => void {
    // Each call is one registration, whether or not the same function was given before.
    const entry: AnyHandler = (event) => (handler as unknown as AnyHandler)(event);
    const entries = this.#handlers.get(name) ?? new Set();
    this.#handlers.set(name, entries.add(entry));
    return () => void entries.delete(entry);
  }

  /**
   * Connects, and stays connected until `close()` or a reason in `ClosedReason`. Goes on from `since`,
   * else from the store's place, else from the present. Does nothing when it is connected already.
   *
   * Resolves when the client is live, closed, or waits for another tab: see `state`. Never rejects.
   */
  connect(options: ConnectOptions = {}): Promise<void> {
    if (this.#run?.isOver !== false) {
      this.#become({ status: 'connecting' });
      this.#run = startRun(this.#owner, options.since, this.#run?.done);
    }
    return new Promise((resolve) => {
      const look = (): void => {
        // `connecting` and `reconnecting`.
        if (this.#state.status.endsWith('ing')) return;
        off();
        resolve();
      };
      const off = this.on('state', look);
      look();
    });
  }

  /**
   * Disconnects. Resolves when the handler that runs has ended, its place is kept, and another tab can
   * take over. Do not await it in a handler: it would wait for itself.
   */
  async close(): Promise<void> {
    this.#run?.stop('closed');
    await this.#run?.done;
  }

  /**
   * All events in their order, for `for await`. Connects if nobody has yet. An event is handled when
   * the loop asks for the next one. A loop that is left by `break`, `return` or `throw` closes the
   * client, and the event that it had comes again after the next `connect()`; to end after an event,
   * call `close()` in the body without awaiting it and let the loop end by itself. Throws a
   * `RealtimeError` of kind `closed` when the client is closed by anything but `close()`.
   */
  [Symbol.asyncIterator](): AsyncGenerator<RealtimeEvent, undefined, undefined> {
    const begin = (): void => {
      this.#loops.add(loop);
      if (this.#state.status === 'closed') void this.connect();
    };
    const loop = loopOf(begin, () => {
      this.#loops.delete(loop);
      void this.close();
    });
    return loop.events;
  }

  /** The messages to the device that are not delivered, oldest first. Rejects as `fetch` does, or with a `RealtimeError` of kind `http`. */
  fetchPendingMessages(deviceId: string, options?: ReadOptions): Promise<StateRead<PendingMessage>> {
    return this.#read(`/messages/pending/${deviceId}`, options);
  }

  /** The session requests that the device has not answered, oldest first. Rejects likewise. */
  fetchPendingSessions(deviceId: string, options?: ReadOptions): Promise<StateRead<PendingSession>> {
    return this.#read(`/sessions/pending?device_id=${deviceId}`, options);
  }

  /** The devices of a user: by default of the option `userId`. Rejects likewise. */
  fetchDevices(userId = this.#owner.options.userId, options?: ReadOptions): Promise<StateRead<Device>> {
    return this.#read(`/users/${userId}/devices`, options);
  }

  #read<Row>(path: string, options?: ReadOptions): Promise<StateRead<Row>> {
    const { endpoints, prover, options: settings } = this.#owner;
    const { fetch = globalThis.fetch } = settings;
    return readState(fetch, endpoints.http(path), prover, options);
  }

  async #hand(frame: RealtimeEvent | ResetEvent): Promise<Given> {
    let cursor: Given;
    const isOwn = /^(state|relayed)$/.test(frame.type);
    for (const handler of [...((!isOwn && this.#handlers.get(frame.type)) || [])]) {
      cursor = (await handler(frame as never)) ?? cursor;
    }
    if (frame.type === 'reset') return cursor;
    for (const loop of [...this.#loops]) await loop.hand(frame);
  }

  #become(state: ClientState): void {
    this.#state = state;
    this.#tell('state', state);
    if (state.status === 'closed') for (const loop of this.#loops) loop.close(state);
  }

  /** Calls handlers that nothing waits for. */
  #tell(name: 'state' | 'error' | 'relayed', value: ClientState | RealtimeError | RealtimeEvent): void {
    for (const handler of [...(this.#handlers.get(name) ?? [])]) {
      void handler(value as never);
    }
  }
}
