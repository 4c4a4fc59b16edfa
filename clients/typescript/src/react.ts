/** Hooks for React 18 and later; safe under strict mode and on a server. */

import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react';
import type { RealtimeClient } from './client.js';
import type { ClientState, EventKinds, EventOf, KindName, SyncOptions, Synced } from './types.js';

/** Events that `useEvents` keeps, unless it is told otherwise. */
export const EVENTS_MAX = 100;
/** How often a hidden page is drawn, in ms. */
const HIDDEN_FRAME_MS = 100;

const NOT_STARTED: ClientState = { status: 'closed', reason: 'not_started' };
/** Handlers of these names get no events. */
type Own = 'reset' | 'state' | 'error';

const NONE: readonly never[] = [];

/**
 * The client's state; of no client (`null`), as while nobody is signed in, that of one that has not started.
 * Connects a client that has not been connected yet, unless `connect` is false, as beside `useSynced`; closing it is
 * left to whoever has made it, since other components may use it too. On a server it is closed and stays so.
 */
export function useRealtime<Events extends object = EventKinds>(
  client: RealtimeClient<Events> | null,
  { connect = true }: { readonly connect?: boolean } = {},
): ClientState {
  const state = useSyncExternalStore(
    useMemo(() => (changed: () => void) => anyOf(client)?.on('state', changed) ?? none, [client]),
    () => client?.state ?? NOT_STARTED,
    () => NOT_STARTED,
  );
  useEffect(() => {
    let isHere = true;
    // After the other effects: `useSynced` connects by itself.
    queueMicrotask(() => {
      const now = client?.state;
      if (isHere && connect && now?.status === 'closed' && now.reason === 'not_started') void client!.connect();
    });
    return () => {
      isHere = false;
    };
  }, [client, connect]);
  return state;
}

/**
 * The newest events of that type since the component was mounted or was given this client, oldest first.
 * The list is another one after each drawing in which
 * events came, at most one for each frame of the page; ten a second while the page is hidden.
 *
 * @param max How many are kept. Default: `EVENTS_MAX`, 100.
 */
export function useEvents<T extends KindName<Events>, Events extends object = EventKinds>(
  client: RealtimeClient<Events> | null,
  type: T & (T extends Own ? never : unknown),
  max: number = EVENTS_MAX,
): readonly EventOf<T, Events>[] {
  const list = useMemo(() => eventList<EventOf<T, Events>>(anyOf(client), type, max), [client, type, max]);
  return useSyncExternalStore(list.subscribe, list.get, () => NONE);
}

/**
 * The state that `client.sync(options)` keeps; `undefined` until it is loaded, and of no client. Begins when the
 * component is mounted or is given another client, and closes the client when it is unmounted. `load` and `apply` are
 * those of the newest rendering.
 */
export function useSynced<State, Events extends object = EventKinds>(
  client: RealtimeClient<Events> | null,
  options: SyncOptions<State, Events>,
): State | undefined {
  const newest = useRef(options);
  newest.current = options;
  const [synced, setSynced] = useState<Synced<State>>();
  useEffect(() => {
    const begun = client?.sync<State>({
      load: (context) => newest.current.load(context),
      apply: (state, event) => newest.current.apply(state, event),
    });
    setSynced(begun);
    return () => {
      setSynced(undefined);
      void begun?.stop();
    };
  }, [client]);
  return useSyncExternalStore(
    useMemo(() => (changed: () => void) => synced?.subscribe(changed) ?? none, [synced]),
    () => synced?.getSnapshot(),
    () => undefined,
  );
}

const none = (): void => {};

/** The client without what its events are. */
const anyOf = (client: unknown): RealtimeClient | null => client as RealtimeClient | null;

function eventList<Event>(client: RealtimeClient | null, type: string, max: number) {
  let events: readonly Event[] = NONE;
  /** Those that came since. */
  let added: Event[] = [];
  let cancel: (() => void) | undefined;
  return {
    get: () => events,
    subscribe(changed: () => void): () => void {
      const draw = (): void => {
        cancel = undefined;
        events = [...events, ...added].slice(-max);
        added = [];
        changed();
      };
      const add = (event: unknown): void => {
        added.push(event as Event);
        if (added.length > max) added.shift();
        cancel ??= onNextFrame(draw);
      };
      const off = client?.on<string>(type, add);
      return () => {
        cancel?.();
        cancel = undefined;
        off?.();
      };
    },
  };
}

/** Calls `draw` with the page's next frame, or in a while if there is none. Returns what cancels that. */
function onNextFrame(draw: () => void): () => void {
  const isDrawn = globalThis.document?.visibilityState === 'visible';
  let frame = 0;
  const cancel = (): void => {
    if (isDrawn) cancelAnimationFrame(frame);
    clearTimeout(timer);
  };
  const once = (): void => {
    cancel();
    draw();
  };
  // A page that is hidden, or is so before its next frame, is given none.
  const timer = setTimeout(once, HIDDEN_FRAME_MS);
  if (isDrawn) frame = requestAnimationFrame(once);
  return cancel;
}
