/** Hooks for React 18 and later; safe under strict mode and on a server. */

import { useEffect, useMemo, useSyncExternalStore } from 'react';
import type { RealtimeClient } from './client.js';
import type { ClientState, EventOf, EventType, HandlerOf } from './types.js';

/** Events that `useEvents` keeps, unless it is told otherwise. */
export const EVENTS_MAX = 100;

const NOT_STARTED: ClientState = { status: 'closed', reason: 'not_started' };
/** Handlers of these names get no events. */
type Own = 'reset' | 'state' | 'error' | 'relayed';

const NONE: readonly never[] = [];

/**
 * The client's state. Connects a client that has not been connected yet; closing it is left to whoever
 * has made it, since other components may use it too. On a server it is closed and stays so.
 */
export function useRealtime(client: RealtimeClient): ClientState {
  const state = useSyncExternalStore(
    useMemo(() => (changed: () => void) => client.on('state', changed), [client]),
    () => client.state,
    () => NOT_STARTED,
  );
  useEffect(() => {
    const { state: now } = client;
    if (now.status === 'closed' && now.reason === 'not_started') void client.connect();
  }, [client]);
  return state;
}

/**
 * The newest events of that type since the component was mounted, oldest first: those that this tab has
 * handled and those that another tab has. The list is another one after each event.
 *
 * @param max How many are kept. Default: `EVENTS_MAX`, 100.
 */
export function useEvents<T extends EventType | (string & {})>(
  client: RealtimeClient,
  type: T & (T extends Own ? never : unknown),
  max: number = EVENTS_MAX,
): readonly EventOf<T>[] {
  const list = useMemo(() => eventList<T>(client, type, max), [client, type, max]);
  return useSyncExternalStore(list.subscribe, list.get, () => NONE);
}

function eventList<T extends string>(client: RealtimeClient, type: T, max: number) {
  let events: readonly EventOf<T>[] = NONE;
  return {
    get: () => events,
    subscribe(changed: () => void): () => void {
      const add = (event: EventOf<T>): void => {
        events = [...events, event].slice(-max);
        changed();
      };
      const offs = [
        client.on<string>(type, add as unknown as HandlerOf<string>),
        client.on('relayed', (event) => {
          if (event.type === type) add(event as unknown as EventOf<T>);
        }),
      ];
      return () => offs.forEach((off) => off());
    },
  };
}
