/** State that follows the events: loaded, then changed by each event, and loaded anew when something was missed. */

import { failure } from './errors.js';
import type { Handlers } from './handlers.js';
import { type Given, OVER } from './pump.js';
import { call } from './report.js';
import type { HandlerContext, RealtimeEvent, ResetEvent, Synced, SyncOptions } from './types.js';

/** What a sync needs of its client. */
export interface SyncOwner {
  readonly handlers: Handlers;
  /** Aborted when the client is closed, which ends it. */
  readonly signal: AbortSignal;
  connect(since: string | null): Promise<void>;
  close(): Promise<void>;
  /** The load failed, and is not to be tried again. */
  fail(error: unknown): void;
}

export function syncOf<State>({ load, apply }: SyncOptions<State>, owner: SyncOwner): Synced<State> {
  const { handlers, signal } = owner;
  const listeners = new Set<() => void>();
  let state: State | undefined;

  function become(next: State): void {
    state = next;
    for (const listener of [...listeners]) call(listener, undefined);
  }

  async function fetchState(_: ResetEvent, context: HandlerContext): Promise<Given> {
    try {
      const loaded = await load(context);
      if (signal.aborted) return;
      become(loaded.state);
      return loaded.cursor;
    } catch (cause) {
      throw failure('load', cause);
    }
  }

  const follow = (event: RealtimeEvent): void => become(apply(state as State, event));
  const offs = [handlers.add('reset', fetchState), handlers.addForAll(follow)];
  signal.addEventListener('abort', () => offs.forEach((off) => off()));

  async function start(): Promise<void> {
    try {
      const cursor = await handlers.hand({ type: 'reset', reason: 'start', cursor: null }, signal);
      await owner.connect(cursor ?? null);
    } catch (error) {
      if (error !== OVER) owner.fail(error);
    }
  }

  globalThis.addEventListener?.('online', handlers.hurry, { signal });
  void start();
  return {
    getSnapshot: () => state,
    subscribe(listener) {
      const entry = (): void => listener();
      listeners.add(entry);
      return () => void listeners.delete(entry);
    },
    stop: async () => {
      if (!signal.aborted) await owner.close();
    },
  };
}
