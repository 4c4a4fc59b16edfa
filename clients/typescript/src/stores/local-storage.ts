/** A place in a page's local storage. */

import { type CursorStore, type Place, placeOf } from './store.js';

/**
 * Keeps the place in `localStorage`, under `hushnet-realtime:<name>`. Each save writes all ids since the
 * cursor before, so that a backlog of tens of thousands is better kept in `indexedDbStore`. Fails where
 * the storage is full or forbidden.
 *
 * @param name Of the user: another user needs another name.
 */
export function localStorageStore(name: string): CursorStore {
  const key = `hushnet-realtime:${name}`;
  return {
    sharedName: key,
    load: () => JSON.parse(localStorage.getItem(key) ?? 'null') as Place | null,
    save: (change) => localStorage.setItem(key, JSON.stringify(placeOf(change))),
    clear: () => localStorage.removeItem(key),
  };
}
