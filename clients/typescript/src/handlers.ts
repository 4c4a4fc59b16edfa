/**
 * The application's handlers: who is called for what, one event at a time and in order, again until it has
 * worked.
 */

import { retryMs } from './backoff.js';
import { HANDLER_TIMEOUT_MS, WARNED_KINDS_MAX } from './bounds.js';
import { RealtimeError, failure } from './errors.js';
import type { Loop } from './iterate.js';
import { type Given, OVER } from './pump.js';
import { call, uncaught } from './report.js';
import { later } from './timer.js';
import type { Blocked, ClientOptions, HandlerContext, LogEntry, RealtimeEvent, ResetEvent } from './types.js';

type Called = RealtimeEvent | ResetEvent;
/** A registration: the same function given twice is two. */
type Entry = (value: never, context?: HandlerContext) => unknown;

/** No kind has this name. */
const ALL = '';

export interface HandlersOwner {
  /** A handler failed, and is called again later; nothing when it has worked. */
  block(blocked: Blocked | undefined): void;
  report(error: RealtimeError): void;
  log(entry: LogEntry): void;
}

export interface Handlers {
  readonly loops: Set<Loop>;
  /** Events that no handler and no loop was there for. */
  readonly unhandled: number;
  /** Registers a handler. Returns what ends it. */
  add(name: string, handler: unknown): () => void;
  /** Registers a handler of events of all kinds. */
  addForAll(handler: unknown): () => void;
  /** Hands a frame to its handlers. Rejects with `OVER` when `signal` was aborted meanwhile. */
  hand(frame: Called, signal: AbortSignal): Promise<Given>;
  /** Calls handlers that nothing waits for, while it is the newest. Returns whether there are any. */
  tell(name: 'state' | 'error', value: unknown, isNewest?: () => boolean): boolean;
  /** Calls a failed handler again at once. */
  hurry(): void;
}

export function handlersOf(options: ClientOptions, owner: HandlersOwner): Handlers {
  const { onHandlerError = 'retry', handlerTimeoutMs = HANDLER_TIMEOUT_MS, random } = options;
  const byName = new Map<string, Set<Entry>>();
  const loops = new Set<Loop>();
  /** Kinds that have been warned of. */
  const warned = new Set<string>();
  let unhandled = 0;
  let hurry = (): void => {};

  const registered = (name: string): Entry[] => [...(byName.get(name) ?? [])];

  function add(name: string, handler: unknown): () => void {
    const entry: Entry = (value, context) => (handler as Entry)(value, context);
    const entries = byName.get(name) ?? new Set();
    byName.set(name, entries.add(entry));
    return () => {
      // What waits to be called again may be this one.
      if (entries.delete(entry)) hurry();
    };
  }

  async function hand(frame: Called, signal: AbortSignal): Promise<Given> {
    let given: Given;
    let isAnswered = false;
    const { type } = frame;
    const own = followerOf(signal);
    const isReset = type === 'reset';
    const isLeft = (entry: Entry): unknown => byName.get(type)?.has(entry) || byName.get(ALL)?.has(entry);
    let left = (type as string) === 'state' ? [] : registered(type);
    if (!isReset) left.push(...registered(ALL));
    if (!left[0] && (isReset || !loops.size)) nobody(frame, isReset);
    let isBlocked = false;
    for (let attempt = 1; left[0]; attempt++) {
      const failed: Entry[] = [];
      for (const entry of left) {
        if (signal.aborted) throw OVER;
        // One that was removed meanwhile has nothing left to do.
        if (!isLeft(entry)) continue;
        try {
          const called = entry(frame as never, own.contextOf(attempt));
          const isAwaited = called instanceof Object;
          const result = isAwaited ? await ended(called, type, signal) : called;
          // Of several that fetch, the first that has ended counts, since its state is the oldest. One that ends at
          // once without a cursor has fetched nothing.
          if (!isAnswered && (isAwaited || result)) {
            isAnswered = true;
            if (typeof result === 'string') given = result;
          }
        } catch (cause) {
          if (signal.aborted) throw OVER;
          if (judge(cause, frame, attempt) === 'retry') failed.push(entry);
        }
      }
      isBlocked ||= !!failed[0];
      if (failed[0]) await wait(frame, attempt, signal);
      left = failed.filter(isLeft);
    }
    own.end();
    if (isBlocked) owner.block(undefined);
    if (isReset && signal.aborted) throw OVER;
    if (!isReset) for (const loop of [...loops]) await loop.hand(frame);
    return given;
  }

  /** Waits for a handler, and reports once if it does not end in time. One that has ended at once is not waited for. */
  async function ended(result: object, type: string, signal: AbortSignal): Promise<unknown> {
    const clear = (): void => clearTimeout(timer);
    signal.addEventListener('abort', clear);
    const timer = later(handlerTimeoutMs, () =>
      owner.report(
        new RealtimeError(
          'handler',
          `a handler of ${type} has not ended in ${handlerTimeoutMs} ms, and the next event waits for it`,
        ),
      ),
    );
    try {
      const given = await result;
      if (signal.aborted) throw OVER;
      return given;
    } finally {
      clear();
      signal.removeEventListener('abort', clear);
    }
  }

  /** What to do about a handler that failed. Throws to close the client. */
  function judge(cause: unknown, frame: Called, attempt: number): 'retry' | 'skip' {
    // What a sync's `load` throws is named there.
    const error = cause instanceof RealtimeError && cause.kind === 'load' ? cause : failure('handler', cause);
    let verdict: unknown = onHandlerError;
    if (typeof onHandlerError === 'function') {
      try {
        verdict = onHandlerError(error, frame, attempt);
        // A promise is no verdict, and what it rejects with is not lost.
        if (verdict instanceof Promise) verdict.catch(uncaught);
      } catch (other) {
        uncaught(other);
      }
    }
    if (verdict === 'close') throw error;
    owner.report(error);
    // After a reset that was skipped nobody would know what is missing.
    return verdict === 'skip' && frame.type !== 'reset' ? 'skip' : 'retry';
  }

  function wait(event: Called, attempt: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
        signal.aborted ? reject(OVER) : resolve();
      };
      const timer = later(retryMs(attempt, random), end);
      signal.addEventListener('abort', end);
      hurry = end;
      // Last: who is told may close the client, or want no waiting.
      owner.block({ event, attempt });
    });
  }

  function nobody({ type }: Called, isReset: boolean): void {
    if (!isReset) unhandled++;
    if (!isReset && (warned.has(type) || warned.size >= WARNED_KINDS_MAX)) return;
    warned.add(type);
    const message = isReset
      ? 'events were missed, and no handler fetches the state anew: on("reset", …)'
      : `events of the kind ${type} come, and nobody handles them: on("${type}", …) before connect()`;
    owner.log({ level: 'warn', event: isReset ? 'reset' : 'unhandled', message });
  }

  return {
    loops,
    get unhandled() {
      return unhandled;
    },
    add,
    addForAll: (handler) => add(ALL, handler),
    hand,
    tell(name, value, isNewest = () => true) {
      const entries = registered(name);
      for (const entry of entries) if (isNewest()) call(entry as (value: unknown) => unknown, value);
      return entries.length > 0;
    },
    hurry: () => hurry(),
  };
}

/** What handlers of one event are given: a signal of their own, made when it is asked for, that follows the client's. */
function followerOf(signal: AbortSignal): { contextOf(attempt: number): HandlerContext; end(): void } {
  let own: AbortController | undefined;
  const follow = (): void => own!.abort(signal.reason);
  return {
    contextOf: (attempt) => ({
      attempt,
      get signal() {
        if (!own) {
          own = new AbortController();
          signal.addEventListener('abort', follow);
          if (signal.aborted) follow();
        }
        return own.signal;
      },
    }),
    end: () => signal.removeEventListener('abort', follow),
  };
}
