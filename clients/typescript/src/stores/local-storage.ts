/** A place in a page's local storage. */

import type { CursorStore, Place } from './store.js';

/**
 * Keeps the place in `localStorage`, under `hushnet-realtime:<name>`. Written before the next event is
 * handed out, without waiting for anything; each write holds all ids since the cursor before, so that
 * a backlog of tens of thousands is better kept in `indexedDbStore`. Fails where the storage is full
 * or forbidden.
 *
 * @param name Of the user: another user needs another name.
 */
export function localStorageStore(name: string): CursorStore {
  const key = `hushnet-realtime:${name}`;
  return {
    sharedName: key,
    load: () => JSON.parse(localStorage.getItem(key) ?? 'null') as Place | null,
    save: ({ cursor, ids, idsBefore }) =>
      localStorage.setItem(key, JSON.stringify({ cursor, ids, idsBefore })),
    clear: () => localStorage.removeItem(key),
  };
}
