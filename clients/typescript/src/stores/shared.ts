/** What makes a store one that tabs share. */

import { groupOf } from '../group.js';
import type { CursorStore } from './store.js';

/**
 * The store, shared by all tabs that have one of this name: they have one connection, and one of them writes here. A
 * store that is not shared is its client's alone. Another user needs another name.
 */
export const sharedStore = (sharedName: string, store: CursorStore): CursorStore => ({
  ...store,
  sharedName,
  share: groupOf,
});
