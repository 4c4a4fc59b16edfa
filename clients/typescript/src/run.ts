/**
 * What is between `connect()` and `close()`: keeps a link, comes back when it is lost, and says how it is. Of tabs
 * that share a store one has a link, and the others take their frames from it (`group.ts`).
 *
 * At most one link at a time, and at most one timer or promise that will open the next one.
 */

import { backoffMs } from './backoff.js';
import {
  CLOSE_TIMEOUT_MS,
  PROOF_TRIES_MAX,
  REFUSED_TRIES,
} from './bounds.js';
import { ADVICE, REFUSED, judge } from './close-codes.js';
import type { Endpoints } from './endpoints.js';
import { RealtimeError, SignedOut, failure, socketFailure } from './errors.js';
import type { Frame, Hello } from './frames.js';
import type { At, Group } from './group.js';
import { type CloseReason, type Link, linkOf } from './link.js';
import { placeAt } from './place.js';
import type { Prover } from './proof.js';
import { type Given, LEFT, OVER, type Pump, pumpOf } from './pump.js';
import { refreshOf } from './refresh.js';
import type { SturdyStore } from './stores/sturdy.js';
import { type Joined, type Position, TABS_VERSION } from './tab-messages.js';
import { type Timer, later, now } from './timer.js';
import type {
  ClientOptions,
  ClosedReason,
  ConnectionState,
  LockManagerLike,
  LostReason,
  RealtimeEvent,
  ResetEvent,
  WebSocketConstructor,
} from './types.js';
import { watchNetwork } from './watch.js';

/** What a run needs of its client. */
export interface RunOwner {
  readonly options: ClientOptions;
  readonly store: SturdyStore;
  readonly endpoints: Endpoints;
  readonly prover: Prover;
  readonly WebSocket: WebSocketConstructor;
  hand(frame: RealtimeEvent | ResetEvent, signal: AbortSignal): Promise<Given>;
  /** Calls a failed handler again at once. */
  hurry(): void;
  report(error: RealtimeError): void;
  become(state: ConnectionState): void;
}

/** The page was left, or the application has paused the client. */
export type Absence = 'left' | 'paused';

export interface Run {
  /** When nothing of the run goes on any more: at most `CLOSE_TIMEOUT_MS` after its end. */
  readonly done: Promise<void>;
  readonly isOver: boolean;
  /** Connects anew at once. */
  reconnect(): void;
  /** The network may be another. */
  better(): void;
  /** Lets the connection go until `show`, for each reason that there is, or `reconnect`. */
  hide(absence: Absence): void;
  show(absence: Absence): void;
  /** Ends the run: nothing more is handed out. What is being handled is handled to its end. */
  stop(reason: ClosedReason, details?: { code?: number; error?: RealtimeError }): void;
}

/** Begins a run when the one before has ended. Its functions are the run's methods, so to say. */
export function startRun(
  owner: RunOwner,
  since: string | null | undefined,
  before: Promise<void> | undefined,
): Run {
  const { options, store, endpoints, prover, report } = owner;
  const over = new AbortController();
  const { signal } = over;
  let pump: Pump;
  let loading: Promise<void> | undefined;
  let group: Group | undefined;
  /** Whether the store is another tab's to write, but for the one that leads. */
  let isGrouped = false;
  let leaving: Promise<void> | undefined;
  /** In the store, when it was loaded. */
  let termKept = 0;
  /** Where this tab was in the group that it has left. */
  let position: Position | undefined;
  let link: Link | undefined;
  /** Set while the next connection is waited for. */
  let next: Timer;
  let goaway: Timer;
  const refresh = refreshOf(prover, (token) => link?.send({ type: 'auth', token }), (error) => isOut(error) || report(error as RealtimeError));
  /** When the server wants to be connected to again, at the earliest; 0 if it has not said. */
  let notBefore = 0;
  /** Whether the server is ending: its time is the wait. */
  let isGoaway = false;
  /** Why events may have been missed where there is no cursor: nobody knows from where on, or it was live before. */
  let missing: 'storage' | 'no_log' | undefined;
  /** Whether tabs cannot share here. */
  let isUnshared = false;
  /** Why no connection is made for now. */
  const absent = new Set<Absence>();
  let state: ConnectionState = { status: 'connecting' };
  let isOver = false;
  /** Whether connections are made. */
  let isOpen = false;
  let failures = 0;
  /** Cursors that reset handlers gave, with no event handled since. */
  let restarts = 0;
  /** Proofs that were refused, or could not be sent, in a row. */
  let refusals = 0;
  /** Counts connections and their ends: what began in another turn has nothing more to do. */
  let turn = 0;

  function stop(reason: ClosedReason, details?: { code?: number; error?: RealtimeError }): void {
    if (isOver) return;
    isOver = true;
    pump?.stop();
    disconnect();
    // Whoever comes back may be another user.
    prover.forget();
    become({ status: 'closed', reason, ...details });
    if (details?.error) report(details.error);
    // Last: a handler may connect again when it is ended.
    over.abort();
  }

  function become(now: ConnectionState): void {
    state = now;
    // That this tab is left or closed is no concern of the others.
    if (!isOver && !absent.size) group?.tell(now);
    owner.become(now);
  }

  let giveUp: Timer;
  /** `CLOSE_TIMEOUT_MS` after the run's end: what has not ended then is not waited for. */
  const givenUp = new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => (giveUp = later(CLOSE_TIMEOUT_MS, resolve)));
  });

  async function held(): Promise<void> {
    // Waited for in any case: nothing is told before the owner has this run.
    await before;
    if (!isOver) {
      isOpen = true;
      watchNetwork({ better, worse, hide: () => hide('left'), show: () => show('left') }, signal);
      void open();
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    }
    await Promise.race([end(), givenUp]);
    clearTimeout(giveUp);
    pump?.keeper.abandon();
  }

  async function end(): Promise<void> {
    await leaveGroup();
    await pump?.idle();
  }

  async function load(): Promise<void> {
    const loaded = await store.load();
    if (isOver) return;
    if (loaded.isLost && !since) missing = 'storage';
    termKept = loaded.place?.term ?? 0;
    pump = pumpOf(store, loaded, options, { hand, onHandled, onFailed, leave, group: () => group, maySave });
    if (since) await pump.replace(placeAt(since));
    else if (loaded.place?.frame !== undefined) position = loaded.place as Position;
  }

  // Without a term a save would not be known for a late one.
  const maySave = (): boolean => (group ? group.isLeading && !!group.term : !isGrouped);
  const hand = (frame: RealtimeEvent | ResetEvent): Promise<Given> => owner.hand(frame, signal);

  async function open(): Promise<void> {
    if (isOver || absent.size) return;
    next = undefined;
    notBefore = 0;
    isGoaway = false;
    const mine = ++turn;
    let protocols;
    try {
      protocols = await prover.subprotocols();
    } catch (cause) {
      if (mine !== turn || isOut(cause)) return;
      const error = cause as RealtimeError;
      if (error.code === 'malformed' && ++refusals >= PROOF_TRIES_MAX) return stop('unauthenticated', { error });
      prover.forget();
      leave('proof');
      return report(error);
    }
    if (mine !== turn) return;
    await enterGroup(`${prover.subject ?? options.userId ?? ''}`, mine);
    if (mine !== turn) return;
    await (loading ??= load());
    if (mine !== turn) return;
    if (group && !isConnecting(group)) return;
    try {
      const kinds = group ? group.kinds : options.kinds;
      const since = group?.isLeading ? group.cursor : pump.arrived.cursor;
      const url = endpoints.socket(options.userId, since, kinds);
      link = linkOf(new owner.WebSocket(url, protocols), options, { onFrame, onEnd, report });
    } catch (cause) {
      leave('socket');
      report(socketFailure(cause));
    }
  }

  /** Where the store is shared: with the tabs of the same user. */
  async function enterGroup(user: string, mine: number): Promise<void> {
    const { locks = (globalThis as { navigator?: Navigator }).navigator?.locks } = options;
    const { sharedName, share } = store;
    if (!share || !locks || isUnshared || options.tabs === 'each') return;
    await leaving;
    // Left again meanwhile, or closed: nobody would end what began now.
    if (mine !== turn) return;
    const name = `${sharedName}:${TABS_VERSION}:${user}`;
    if (group && group.name !== name) {
      // Another user has signed in: what was passed on was the other's.
      await leaveGroup();
      position = undefined;
      if (mine !== turn) return;
    }
    try {
      isGrouped = true;
      group ??= share(name, locks as LockManagerLike, options, tabs);
      if (position) group.position = position;
      position = undefined;
      await group.entered;
    } catch (cause) {
      // As in a page of an opaque origin: a client of its own, then.
      isUnshared = true;
      isGrouped = false;
      report(failure('store', cause));
    }
  }

  /** Whether this tab is to have a connection. Else it joins the tab that has one. */
  function isConnecting(group: Group): boolean {
    if (position) group.position = position;
    position = undefined;
    const { cursor } = pump.arrived;
    if (group.isLeading) {
      const at = group.begin(cursor, termKept);
      if (at) {
        // Another tab may have written since it was loaded.
        pump.keeper.forget();
        pump.mark(at);
      }
    } else if (!group.isAlone) {
      // Elsewhere than any of them, as with a `since`.
      if (cursor && !group.position) group.stray();
      else group.join(!cursor && !group.position);
    }
    return group.isLeading || group.isAlone;
  }

  /** Keeps what was handled, and gives the lock away. */
  function leaveGroup(): Promise<void> {
    const left = group;
    return (leaving = (async () => {
      left?.settle();
      await Promise.race([pump?.keeper.save(), givenUp]);
      if (!left || group !== left) return;
      group = undefined;
      position = left.position;
      pump?.keeper.forget();
      left.leave();
    })());
  }

  /** This tab has another part now. */
  function turnTo(): void {
    if (!absent.size) openNow();
  }

  const tabs = {
    onLead(): void {
      pump?.keeper.forget();
      turnTo();
    },
    onFollow: turnTo,
    onAlone: turnTo,
    onKinds: turnTo,
    get passed() {
      return pump.arrived.passed;
    },
    onJoined({ cursor, state }: Joined, at: At, isNew: boolean): void {
      // One that was alone needs its own no more.
      dropLink();
      pump.mark(at);
      failures = 0;
      // Else nothing was missed, also where there is no cursor.
      if (isNew) begun(cursor);
      become(state);
    },
    onFrame: (frame: Frame, characters: number, at: At): void => take(frame, characters, at),
    onState: (state: ConnectionState): void => become(state),
    onProgress: (): void => pump?.keeper.saveSoon(),
    reaches: (cursor: string | null): boolean => pump.arrived.reaches(cursor),
    report,
    get leader(): Joined {
      return { cursor: pump.arrived.cursor, state };
    },
  };

  /** Whether nobody is signed in: then there is nothing to connect for. */
  function isOut(cause: unknown): boolean {
    const isSignedOut = cause instanceof SignedOut;
    if (isSignedOut) stop('signed_out');
    return isSignedOut;
  }

  function onFrame(frame: Frame, characters: number): void {
    switch (frame.type) {
      case 'hello':
        return greet(frame);
      case 'goaway':
        notBefore = now() + frame.retry_after_ms!;
        isGoaway = true;
        clearTimeout(goaway);
        goaway = later(frame.retry_after_ms!, () => leave('goaway'));
        return;
      case 'authenticated':
        if (frame.expires_in_ms) prover.extend(frame.expires_in_ms);
        return refresh.start();
      case 'error':
        // The token before stands. With the next connection another is asked for.
        if (`${frame.code}`.startsWith('token_')) prover.forget();
        return report(new RealtimeError('server', `${frame.message}`, { code: frame.code }));
      case 'pong':
        return;
      default:
        if (!link) return;
        take(frame, characters);
        // Where the other tabs have come by as well, this one may join them.
        if (group?.isAlone && (frame as RealtimeEvent).cursor) group.join(false);
    }
  }

  function greet({ cursor, resumed, expires_in_ms }: Hello): void {
    refusals = 0;
    if (expires_in_ms) prover.extend(expires_in_ms);
    refresh.start();
    begun(cursor);
    // There is none when there was no room for that.
    if (!link) return;
    become({ status: 'live', resumed });
    group?.ready();
  }

  /** A stream has begun whose newest cursor is that one. */
  function begun(cursor: string | null): void {
    failures = 0;
    // With a cursor, it goes on from there, or a reset follows that has to be handled first. Without
    // one and not for the first time, nobody else can know that something was missed.
    if (!pump.arrived.cursor) take(missing ? { type: 'reset', reason: missing, cursor } : { type: 'cursor', cursor });
    missing = 'no_log';
  }

  function take(frame: Frame, characters = 0, relayed?: At): void {
    if (!pump.accept(frame, characters, relayed ?? group?.next)) leave('overflow');
    // What there was no room for is not in the stream, since this tab is not after it.
    else if (!relayed) group?.record(frame, characters);
  }

  function onEnd(reason: 'socket' | 'silent', code?: number, why: CloseReason = {}): void {
    if (code === 4001) refusals++;
    const verdict = code ? judge(code, refusals, prover.isRenewable) : 'return';
    if (verdict === 'prove') prover.forget();
    else if (verdict !== 'return') {
      const message = `the server closed with ${code}: ${why.message ?? 'no reason given'}. ${ADVICE[verdict]}`;
      return stop(verdict, { code: code!, error: new RealtimeError('closed', message, { code: verdict }) });
    }
    leave(reason, code, why.retry_after_ms);
  }

  function onHandled(): void {
    restarts = 0;
  }

  function onFailed(error: unknown): void {
    if (error === LEFT) stop('closed');
    else if (error !== OVER) stop('handler_failed', { error: error as RealtimeError });
  }

  function disconnect(): void {
    dropLink();
    group?.part();
  }

  function dropLink(): void {
    turn++;
    link?.drop();
    link = undefined;
    [next, goaway].forEach(clearTimeout);
    refresh.stop();
    next = undefined;
  }

  /** Leaves the connection, and comes back when it is time. */
  function leave(reason: LostReason, code?: number, waitMs = 0): void {
    disconnect();
    const mine = turn;
    if (waitMs) notBefore = Math.max(notBefore, now() + waitMs);
    // The first time that a handler goes on from elsewhere is at once. If that brings another reset, it is a failure.
    const isAtOnce = isGoaway || (reason === 'restart' && !restarts++);
    const wait = isAtOnce ? 0 : backoffMs(++failures + (reason === 'restart' ? restarts : 0), options.random, options.backoff);
    const retryInMs = Math.max(wait, notBefore - now(), 0);
    const attempt = failures || 1;
    // Who cannot keep up is not to be sent more before he has done what he has.
    if (reason === 'restart') group?.stray();
    if (reason === 'overflow') {
      group?.resign();
      void pump.idle().then(() => openIn(retryInMs, mine));
    } else openIn(retryInMs, mine);
    const isRefused = reason === 'socket' && failures === REFUSED_TRIES && missing !== 'no_log';
    become({ status: 'reconnecting', reason, attempt, retryInMs, ...(code && { code }) });
    // A browser does not say why an upgrade was refused.
    if (isRefused) report(new RealtimeError('socket', `no connection was accepted in ${REFUSED_TRIES} tries. ${REFUSED}`));
  }

  function openIn(ms: number, mine: number): void {
    if (mine !== turn) return;
    next = later(ms, () => {
      if (mine === turn) void open();
    });
  }

  /** The network may be back: does not wait any longer, unless the server has given a time. */
  function better(): void {
    owner.hurry();
    if (absent.size) return;
    if (!next) link?.probe();
    else if (notBefore <= now()) openNow();
  }

  function openNow(): void {
    disconnect();
    failures = 0;
    void open();
  }

  function reconnect(): void {
    owner.hurry();
    if (!isOpen) return;
    absent.clear();
    openNow();
    become({ status: 'reconnecting', reason: 'reconnect', attempt: 1, retryInMs: 0 });
  }

  /** A page with an open socket is not kept for coming back to it. */
  function hide(absence: Absence): void {
    if (isOver || absent.has(absence)) return;
    if (absent.add(absence).size > 1 || !isOpen) return;
    disconnect();
    // What was handled is kept, if there is time for it, and another tab takes over.
    const mine = turn;
    void pump?.keeper.save();
    void Promise.race([pump?.idle(), new Promise((resolve) => later(CLOSE_TIMEOUT_MS, () => resolve(null)))]).then(() => {
      if (mine === turn && group) void leaveGroup();
    });
    become({ status: 'reconnecting', reason: 'paused', attempt: 1, retryInMs: 0 });
  }

  function show(absence: Absence): void {
    if (absent.delete(absence) && !absent.size && isOpen) openNow();
  }

  function worse(): void {
    link?.probe();
  }

  return {
    done: held(),
    get isOver() {
      return isOver;
    },
    reconnect,
    better,
    hide,
    show,
    stop,
  };
}
