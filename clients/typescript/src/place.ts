/**
 * The rule that makes each event come once: the newest cursor, the ids that came under it, and those
 * that came under the one before (docs/protocol.md).
 *
 * A client has two: one is moved when a frame arrives and says what is new and from where to come
 * back; the other when it was handled, and is what the store keeps. Both see the same frames in the
 * same order, so the second becomes what the first was.
 */

import type { Place } from './stores/store.js';

/** A place that moves. What `ids` and `idsBefore` give are copies. */
export interface MovingPlace extends Place {
  has(id: number): boolean;
  replace(place: Place): void;
  /** Moves to `cursor`, if it is one and another. Returns whether it was. */
  move(cursor: string | null | undefined): boolean;
  /** Keeps the id under the present cursor. Returns whether it was not there yet. */
  add(id: number): boolean;
}

/** A place that nothing was handled after. */
export const placeAt = (cursor: string | null): Place => ({ cursor, ids: [], idsBefore: [] });

export function movingPlace(from: Place | null): MovingPlace {
  let { cursor, ids, idsBefore } = from ?? placeAt(null);
  let now = new Set(ids);
  let before = new Set(idsBefore);
  return {
    get cursor() {
      return cursor;
    },
    get ids() {
      return [...now];
    },
    get idsBefore() {
      return [...before];
    },
    has: (id) => now.has(id) || before.has(id),
    replace(place) {
      ({ cursor, ids, idsBefore } = place);
      now = new Set(ids);
      before = new Set(idsBefore);
    },
    move(next) {
      if (next == null || next === cursor) return false;
      cursor = next;
      before = now;
      now = new Set();
      return true;
    },
    add: (id) => now.size < now.add(id).size,
  };
}
