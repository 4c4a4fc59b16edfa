/** A place for as long as the page or the process lives. */

import { type CursorStore, type Place, placeOf } from './store.js';

/**
 * Keeps the place in memory. Shared by nobody: two tabs with a store of this kind are two clients,
 * each of which gets every event.
 */
export function memoryStore(): CursorStore {
  let kept: Place | null = null;
  /** The ids of `kept`. */
  let ids: number[] = [];
  return {
    load: () => kept && { ...kept, ids: [...ids] },
    save(change) {
      const { added } = change;
      if (added && kept) {
        for (const id of added) ids.push(id);
        return;
      }
      kept = placeOf(change);
      ids = [...kept.ids];
    },
    clear: () => void (kept = null),
  };
}
