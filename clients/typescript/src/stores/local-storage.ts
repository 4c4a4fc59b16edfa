/** A place in a page's local storage. */

import { sharedStore } from './shared.js';
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
  return sharedStore(key, {
    load: () => JSON.parse(localStorage.getItem(key) ?? 'null') as Place | null,
    save(change) {
      const { term } = change;
      // Without reading all ids: it begins with the term.
      const kept = term && /^{"term":(\d+)/.exec(localStorage.getItem(key) ?? '');
      if (!kept || term >= Number(kept[1])) localStorage.setItem(key, JSON.stringify(placeOf(change)));
    },
    clear: () => localStorage.removeItem(key),
  });
}
