/** The client as its user sees it: settings, handlers, state. What it does when connected is `run.ts`. */

import { endpointsOf } from './endpoints.js';
import { RealtimeError } from './errors.js';
import { type Handlers, handlersOf } from './handlers.js';
import { loopOf } from './iterate.js';
import { proverOf } from './proof.js';
import { call, toConsole } from './report.js';
import { type Run, type RunOwner, startRun } from './run.js';
import { readState } from './state-reads.js';
import { memoryStore } from './stores/memory.js';
import { sturdy } from './stores/sturdy.js';
import { syncOf } from './sync.js';
import type {
  Blocked,
  ClientOptions,
  ClientState,
  ConnectOptions,
  ConnectionState,
  Device,
  EventKinds,
  HandlerName,
  HandlerOf,
  KindName,
  LogEntry,
  PendingMessage,
  PendingSession,
  RealtimeEvent,
  ReadOptions,
  StateRead,
  SyncOptions,
  Synced,
} from './types.js';

/**
 * A user's events, each once. Nothing happens before `connect()`; register handlers before it, since an
 * event that nobody listens to counts as handled.
 *
 * `Events` has the kinds whose fields are typed, by name: what `hushnet-realtime types --typescript` writes, or by
 * default `EventKinds`.
 */
export class RealtimeClient<Events extends object = EventKinds> implements AsyncIterable<RealtimeEvent<Events>> {
  readonly #handlers: Handlers;
  readonly #owner: RunOwner;
  #run: Run | undefined;
  #synced: AbortController | undefined;
  /** Whether a sync loads its state, and is to connect then. */
  #isLoading = false;
  #isPaused = false;
  #settled: Promise<void> | undefined;
  #connection: ConnectionState = { status: 'closed', reason: 'not_started' };
  #blocked: Blocked | undefined;
  #state: ClientState = this.#connection;

  /** Throws a `TypeError` for settings with which it could never connect. */
  constructor(options: ClientOptions & { readonly kinds?: readonly KindName<Events>[] }) {
    const { cursorStore = memoryStore() } = options;
    const report = (error: RealtimeError): void => this.#report(error);
    this.#handlers = handlersOf(options, {
      report,
      log: (entry) => this.#log(entry),
      block: (blocked) => this.#become(this.#connection, blocked),
    });
    this.#owner = {
      options,
      store: sturdy(cursorStore, report, options.storeTimeoutMs),
      endpoints: endpointsOf(options),
      prover: proverOf(options),
      // Looked for when it is needed: the server that renders a page makes the client, and may have none.
      get WebSocket() {
        return options.WebSocket ?? globalThis.WebSocket;
      },
      hand: (frame, signal) => this.#handlers.hand(frame, signal),
      hurry: () => this.#handlers.hurry(),
      report,
      become: (connection) => this.#become(connection, this.#blocked),
    };
  }

  /** How the client is doing. Another object after each change, the same until then. */
  get state(): ClientState {
    return this.#state;
  }

  /** How many events came that no handler and no loop was there for. */
  get unhandledEvents(): number {
    return this.#handlers.unhandled;
  }

  /**
   * Calls `handler` for each event of that name, one event at a time and in their order: the next one
   * waits until the promises of this one's handlers have ended. One that fails is called again, as
   * `onHandlerError` says. The handlers of `state` and `error` are not waited for, and get no events:
   * one of the kind `state` goes to loops alone. Returns what ends it.
   */
  on<N extends HandlerName<Events>>(name: N, handler: HandlerOf<N, Events>): () => void {
    return this.#handlers.add(name, handler);
  }

  /**
   * Connects, and stays connected until `close()` or a reason in `ClosedReason`. Goes on from `since`,
   * else from the store's place, else from the present. Does nothing when it is connected already.
   *
   * Resolves when the client is live or closed: see `state`. Never rejects.
   */
  connect(options: ConnectOptions = {}): Promise<void> {
    return this.#start(options.since, this.#owner);
  }

  #start(since: string | null | undefined, owner: RunOwner): Promise<void> {
    if (this.#run?.isOver !== false && !this.#isLoading) {
      try {
        // What the platform lacks ends this now, and not each try.
        this.#owner.endpoints.socket('', '');
        if (!this.#owner.WebSocket) {
          throw new RealtimeError('unsupported', 'no WebSocket (Node has one from 22 on): give it, as from the package ws');
        }
        const before = this.#run?.done;
        this.#run = startRun(owner, since, before);
        if (this.#isPaused) this.#run.hide('paused');
        this.#become({ status: 'connecting' });
      } catch (cause) {
        const error = cause as RealtimeError;
        this.#become({ status: 'closed', reason: 'unsupported', error });
        this.#report(error);
      }
    }
    // One for all who wait.
    return (this.#settled ??= new Promise((resolve) => {
      const look = (): void => {
        // `connecting` and `reconnecting`.
        if (this.#state.status.endsWith('ing')) return;
        off();
        this.#settled = undefined;
        resolve();
      };
      const off = this.#handlers.add('state', look);
      queueMicrotask(look);
    }));
  }

  /**
   * State and stream in one: loads the state, connects from its cursor, changes it by each event, and loads it anew
   * when events were missed. The client goes on from what is loaded and so do its other handlers: the store is not
   * used, and each tab has a connection of its own. `close()` ends it. Throws when the client is connected, or has such a state already: load all of it as one.
   */
  sync<State>(options: SyncOptions<State, Events>): Synced<State> {
    if (this.#state.status !== 'closed') {
      throw new Error('sync() needs a client that is not connected, and is the only one of it');
    }
    const synced = (this.#synced = new AbortController());
    this.#isLoading = true;
    const begun = syncOf(options as unknown as SyncOptions<State>, {
      handlers: this.#handlers,
      signal: synced.signal,
      connect: (since) => {
        this.#isLoading = false;
        return this.#start(since, this.#ownStore());
      },
      close: () => this.close(),
      fail: (cause) => {
        const error = cause as RealtimeError;
        this.#become({ status: 'closed', reason: 'handler_failed', error });
        this.#report(error);
      },
    });
    this.#become({ status: 'connecting' });
    return begun;
  }

  /** Lets the connection go, and makes none, until `resume()` or `reconnect()`. Handlers go on. */
  pause(): void {
    this.#isPaused = true;
    this.#run?.hide('paused');
  }

  /** Connects again after `pause()`. */
  resume(): void {
    this.#isPaused = false;
    this.#run?.show('paused');
  }

  /** The network may be another: a link is asked whether it lives, and a wait for the next one is ended. */
  probe(): void {
    if (this.#run?.isOver === false) this.#run.better();
  }

  /** Connects anew and calls a failed handler again, both at once and not after their waits. */
  reconnect(): void {
    this.#isPaused = false;
    if (this.#isLoading) this.#handlers.hurry();
    else if (this.#run?.isOver === false) this.#run.reconnect();
    else void this.connect();
  }

  /**
   * Disconnects. Aborts the signal of the handler that runs, and resolves when that has ended and the place is
   * kept, or after 5 s; the event of that handler comes again after the next `connect()`. Do not await it in a
   * handler: it would wait for itself.
   */
  async close(): Promise<void> {
    const run = this.#run;
    // While a sync loads there is no run.
    if (this.#isLoading) this.#become({ status: 'closed', reason: 'closed' });
    run?.stop('closed');
    await run?.done;
  }

  /**
   * All events in their order, for `for await`. Connects if nobody has yet. An event is handled when
   * the loop asks for the next one. A loop that is left by `break`, `return` or `throw` closes the
   * client, and the event that it had comes again after the next `connect()`; to end after an event,
   * call `close()` in the body without awaiting it and let the loop end by itself. Throws a
   * `RealtimeError` of kind `closed` when the client is closed by anything but `close()`.
   */
  [Symbol.asyncIterator](): AsyncGenerator<RealtimeEvent<Events>, undefined, undefined> {
    const { loops } = this.#handlers;
    const begin = (): void => {
      loops.add(loop);
      if (this.#state.status === 'closed') void this.connect();
    };
    const loop = loopOf(begin, () => {
      // One that ended because the client was closed does not close it again.
      if (loops.delete(loop)) void this.close();
    });
    return loop.events as AsyncGenerator<RealtimeEvent<Events>, undefined, undefined>;
  }

  /** The messages to the device that are not delivered, oldest first. Rejects as `fetch` does, or with a `RealtimeError` of kind `http`. */
  fetchPendingMessages(deviceId: string, options?: ReadOptions): Promise<StateRead<PendingMessage>> {
    return this.#read(`/messages/pending/${deviceId}`, options);
  }

  /** The session requests that the device has not answered, oldest first. Rejects likewise. */
  fetchPendingSessions(deviceId: string, options?: ReadOptions): Promise<StateRead<PendingSession>> {
    return this.#read(`/sessions/pending?device_id=${deviceId}`, options);
  }

  /** The devices of a user: by default of the option `userId`, else of the token's user. Rejects likewise. */
  async fetchDevices(userId?: string, options?: ReadOptions): Promise<StateRead<Device>> {
    const { prover, options: settings } = this.#owner;
    const user = userId ?? settings.userId ?? (await prover.user());
    if (!user) throw new RealtimeError('http', 'whose devices? Neither userId nor the token says it');
    return this.#read(`/users/${user}/devices`, options);
  }

  async #read<Row>(path: string, options?: ReadOptions): Promise<StateRead<Row>> {
    const { endpoints, prover, options: settings } = this.#owner;
    const { fetch = globalThis.fetch } = settings;
    return readState(fetch, endpoints.http(path), prover, options);
  }

  /** For a state that is loaded anew by each page: another tab's place is not its own. */
  #ownStore(): RunOwner {
    const store = sturdy(memoryStore(), this.#owner.report);
    return Object.create(this.#owner, { store: { value: store } }) as RunOwner;
  }

  #become(connection: ConnectionState, blocked?: Blocked): void {
    const isClosed = connection.status === 'closed';
    this.#connection = connection;
    this.#blocked = isClosed ? undefined : blocked;
    const state = (this.#state = { ...connection, ...(this.#blocked && { blocked: this.#blocked }) });
    if (isClosed) {
      this.#isLoading = false;
      this.#synced?.abort();
      this.#synced = undefined;
      const { loops } = this.#handlers;
      for (const loop of [...loops]) {
        loops.delete(loop);
        loop.close(connection);
      }
    }
    this.#log({ level: 'info', event: 'state', message: state.status, state });
    this.#handlers.tell('state', state, () => this.#state === state);
  }

  #report(error: RealtimeError): void {
    const isHeard = this.#handlers.tell('error', error);
    if (!isHeard || this.#owner.options.logger) {
      this.#log({ level: 'error', event: 'error', message: error.message, error });
    }
  }

  #log(entry: LogEntry): void {
    call(this.#owner.options.logger ?? toConsole, entry);
  }
}
