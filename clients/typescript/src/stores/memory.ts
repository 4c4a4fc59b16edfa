/** A place for as long as the page or the process lives. */

import type { CursorStore, Place } from './store.js';

/**
 * Keeps the place in memory. Shared by nobody: two tabs with a store of this kind are two clients,
 * each of which gets every event.
 */
export function memoryStore(): CursorStore {
  let kept: Place | null = null;
  return {
    load: () => kept,
    save: (place) => void (kept = place),
    clear: () => void (kept = null),
  };
}
