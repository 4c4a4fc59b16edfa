/**
 * What is between `connect()` and `close()`: holds the store's lock, keeps a link, comes back when it
 * is lost, and says how it is.
 *
 * At most one link at a time, and at most one timer or promise that will open the next one.
 */

import { backoffMs } from './backoff.js';
import { REFRESH_BEFORE_MS, REFRESH_SOONEST_MS } from './bounds.js';
import { judge } from './close-codes.js';
import type { Endpoints } from './endpoints.js';
import { RealtimeError, failure } from './errors.js';
import type { Frame, Hello } from './frames.js';
import { type Link, linkOf } from './link.js';
import { placeAt } from './place.js';
import type { Prover } from './proof.js';
import { type Given, LEFT, type Pump, pumpOf } from './pump.js';
import type { CursorStore } from './stores/store.js';
import { holdLock } from './tabs.js';
import { type Timer, later } from './timer.js';
import type {
  ClientOptions,
  ClientState,
  ClosedReason,
  LostReason,
  RealtimeEvent,
  ResetEvent,
  WebSocketConstructor,
} from './types.js';
import { watchNetwork } from './watch.js';

/** What a run needs of its client. */
export interface RunOwner {
  readonly options: ClientOptions;
  readonly store: CursorStore;
  readonly endpoints: Endpoints;
  readonly prover: Prover;
  readonly WebSocket: WebSocketConstructor;
  hand(frame: RealtimeEvent | ResetEvent): Promise<Given>;
  relayed(event: RealtimeEvent): void;
  report(error: RealtimeError): void;
  become(state: ClientState): void;
}

export interface Run {
  /** When nothing of the run goes on any more, and its lock is free. */
  readonly done: Promise<void>;
  readonly isOver: boolean;
  /** Ends the run: nothing more is handed out. What is being handled is handled to its end. */
  stop(reason: ClosedReason, details?: { code?: number; error?: RealtimeError }): void;
}

/** Begins a run when the one before has ended. Its functions are the run's methods, so to say. */
export function startRun(
  owner: RunOwner,
  since: string | null | undefined,
  before: Promise<void> | undefined,
): Run {
  const { options, store, endpoints, prover, hand, report, become } = owner;
  const over = new AbortController();
  const { signal } = over;
  let relay: BroadcastChannel | undefined;
  let pump: Pump;
  let link: Link | undefined;
  /** Set while the next connection is waited for. */
  let next: Timer;
  let goaway: Timer;
  let refresh: Timer;
  /** When the server wants to be left; 0 if it has not said. */
  let goawayAt = 0;
  /** Whether there was a hello: without a cursor, events may have been missed since. */
  let wasLive = false;
  let failures = 0;
  /** Refusals with 4001 in a row. */
  let refusals = 0;
  /** Counts connections and their ends: what began in another turn has nothing more to do. */
  let turn = 0;

  function stop(reason: ClosedReason, details?: { code?: number; error?: RealtimeError }): void {
    if (signal.aborted) return;
    over.abort();
    pump?.stop();
    disconnect();
    if (details?.error) report(details.error);
    become({ status: 'closed', reason, ...details });
  }

  async function hold(): Promise<void> {
    // Waited for in any case: nothing is told before the owner has this run.
    await before;
    const { locks = (globalThis as { navigator?: Navigator }).navigator?.locks } = options;
    const { sharedName } = store;
    try {
      if (!sharedName || !locks) return await stream(since);
      relay = new BroadcastChannel(sharedName);
      relay.onmessage = ({ data }) => owner.relayed(data as RealtimeEvent);
      const wait = (): void => become({ status: 'standby' });
      // What another has handled meanwhile is in the store, and `since` was before it.
      await holdLock(locks, sharedName, signal, wait, (waited) => {
        if (waited) become({ status: 'connecting' });
        return stream(waited ? null : since);
      });
    } catch (cause) {
      stop('store_failed', { error: failure('store', cause) });
    } finally {
      relay?.close();
    }
  }

  /** Has the stream until the run is over. */
  async function stream(since: string | null | undefined): Promise<void> {
    const place = await store.load();
    if (signal.aborted) return;
    pump = pumpOf(store, place, options, { hand, report, onHandled, onFailed, leave });
    if (since) await pump.replace(placeAt(since));
    if (!signal.aborted) {
      watchNetwork(better, worse, signal);
      void open();
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    }
    await pump.idle();
  }

  async function open(): Promise<void> {
    next = undefined;
    goawayAt = 0;
    const mine = ++turn;
    try {
      const protocols = await prover.subprotocols();
      if (mine !== turn) return;
      const url = endpoints.socket(options.userId, pump.arrived.cursor);
      link = linkOf(new owner.WebSocket(url, protocols), options, { onFrame, onEnd, report });
    } catch (cause) {
      if (mine !== turn) return;
      report(cause instanceof RealtimeError ? cause : failure('proof', cause));
      prover.forget();
      void leave('proof');
    }
  }

  function onFrame(frame: Frame, characters: number): void {
    switch (frame.type) {
      case 'hello':
        return greet(frame);
      case 'goaway':
        goawayAt = Date.now() + frame.retry_after_ms!;
        goaway = later(frame.retry_after_ms!, () => leave('goaway'));
        return;
      case 'authenticated':
        if (frame.expires_in_ms) prover.extend(frame.expires_in_ms);
        return refreshLater();
      case 'error':
        // The token before stands. With the next connection another is asked for.
        if (frame.code?.startsWith('token_')) prover.forget();
        return report(new RealtimeError('server', `${frame.message}`, { code: frame.code }));
      default:
        take(frame, characters);
    }
  }

  function greet({ cursor, resumed }: Hello): void {
    failures = refusals = 0;
    become({ status: 'live', resumed });
    refreshLater();
    // With a cursor, it goes on from there, or a reset follows that has to be handled first. Without
    // one and not for the first time, nobody else can know that something was missed.
    if (!pump.arrived.cursor) {
      take(wasLive ? { type: 'reset', reason: 'no_log', cursor } : { type: 'cursor', cursor });
    }
    wasLive = true;
  }

  function take(frame: Frame, characters?: number): void {
    if (link && !pump.accept(frame, characters)) void leave('overflow');
  }

  function onEnd(reason: 'socket' | 'silent', code?: number, waitMs?: number): void {
    if (code === 4001) refusals++;
    const verdict = code ? judge(code, refusals, prover.isRenewable) : 'return';
    if (verdict === 'prove') prover.forget();
    else if (verdict !== 'return') return stop(verdict, { code: code as number });
    void leave(reason, code, waitMs);
  }

  function onHandled(event: RealtimeEvent): void {
    relay?.postMessage(event);
  }

  function onFailed(error: unknown): void {
    if (error === LEFT) stop('closed');
    else stop('handler_failed', { error: error as RealtimeError });
  }

  function disconnect(): void {
    turn++;
    link?.drop();
    link = undefined;
    [next, goaway, refresh].forEach(clearTimeout);
    next = undefined;
  }

  /** Leaves the connection, and comes back when it is time. */
  async function leave(reason: LostReason, code?: number, waitMs = 0): Promise<void> {
    disconnect();
    const mine = turn;
    const retryInMs = Math.max(
      waitMs,
      goawayAt || reason === 'restart'
        ? goawayAt - Date.now()
        : backoffMs(++failures, options.random, options.backoff),
    );
    const attempt = failures || 1;
    become({ status: 'reconnecting', reason, attempt, retryInMs, ...(code && { code }) });
    // Who cannot keep up is not to be sent more before he has done what he has.
    if (reason === 'overflow') await pump.idle();
    if (mine === turn) next = later(retryInMs, open);
  }

  /** The network may be back: does not wait any longer, unless the server has given a time. */
  function better(): void {
    if (!next) link?.probe();
    else if (!goawayAt) {
      failures = 0;
      clearTimeout(next);
      void open();
    }
  }

  function worse(): void {
    link?.probe();
  }

  function refreshLater(): void {
    clearTimeout(refresh);
    const leftMs = prover.remainingMs();
    // One that has expired by this machine's clock: the server's counts, and it will say so.
    if (!(leftMs > 0)) return;
    const inMs = leftMs - Math.min(REFRESH_BEFORE_MS, leftMs / 4);
    refresh = later(Math.max(inMs, REFRESH_SOONEST_MS), renew);
  }

  async function renew(): Promise<void> {
    const mine = turn;
    let token;
    try {
      token = await prover.renew();
    } catch (error) {
      report(error as RealtimeError);
    }
    if (mine !== turn) return;
    if (token) link?.send({ type: 'auth', token });
    refreshLater();
  }

  return {
    done: hold(),
    get isOver() {
      return signal.aborted;
    },
    stop,
  };
}
