/**
 * The rule that makes each event come once: the newest cursor, the ids that came under it, and those
 * that came under the one before (docs/protocol.md).
 *
 * A client has two places. `arrived` is moved when a frame comes, and says what is new and from where to
 * come back; `kept` when it was handled, and is what the store keeps. Both see the same frames in the
 * same order, so the second becomes what the first was.
 */

import { type IdSet, idSet } from './ids.js';
import type { Place, PlaceChange } from './stores/store.js';

/** Where the newest frame was. */
export interface Arrived {
  readonly cursor: string | null;
  /** Whether an event with this id has come under this cursor or the one before. */
  has(id: number): boolean;
  replace(place: Place): void;
  /** Moves to `cursor`, if it is one and another. */
  move(cursor: string | null | undefined): void;
  /** Keeps the id under the present cursor. Returns whether it was not there yet. */
  add(id: number): boolean;
}

/** A place that nothing was handled after. */
export const placeAt = (cursor: string | null): Place => ({ cursor, ids: [], idsBefore: [] });

export function arrivedAt(from: Place): Arrived {
  let cursor: string | null;
  let now: IdSet;
  let before: IdSet;

  function replace(place: Place): void {
    cursor = place.cursor;
    now = idSet(place.ids);
    before = idSet(place.idsBefore);
  }

  replace(from);
  return {
    get cursor() {
      return cursor;
    },
    has: (id) => now.has(id) || before.has(id),
    replace,
    move(next) {
      if (next == null || next === cursor) return;
      cursor = next;
      before = now;
      now = idSet();
    },
    add: (id) => now.add(id),
  };
}

/** A change, with how many ids there are under its cursor, and how often the place had moved. */
type Change = PlaceChange & { readonly count: number; readonly moves: number };

/** Where the newest frame was whose handlers have ended. */
export interface Kept {
  /** Whether the store has a place. */
  readonly isThere: boolean;
  /** What there is to save; nothing when nothing has changed since `saved`. */
  change(): Change | undefined;
  /** This change is in the store. */
  saved(change: Change): void;
  replace(place: Place): void;
  move(cursor: string | null | undefined): void;
  add(id: number): void;
}

export function keptAt(from: Place | null, isKept = true): Kept {
  let { cursor, idsBefore, ids: first } = from ?? placeAt(null);
  let ids = [...first];
  /** How many of `ids` are in the store. */
  let known = ids.length;
  let isMoved = false;
  let moves = 0;
  let isThere = !!from && isKept;

  function replace(place: Place): void {
    cursor = place.cursor;
    ids = [...place.ids];
    idsBefore = place.idsBefore;
    known = 0;
    isMoved = true;
    moves++;
  }

  return {
    get isThere() {
      return isThere;
    },
    change() {
      if (!isMoved && known === ids.length) return undefined;
      const [all, count, before] = [ids, ids.length, known];
      const isWhole = isMoved || !isThere;
      return {
        cursor,
        idsBefore,
        count,
        moves,
        // Made when they are read: most stores need one of them.
        get ids() {
          return all.slice(0, count);
        },
        get added() {
          return isWhole ? undefined : all.slice(before, count);
        },
      };
    },
    saved(change) {
      isThere = true;
      // It may have moved on meanwhile.
      if (change.moves !== moves) return;
      known = change.count;
      isMoved = false;
    },
    replace,
    move(next) {
      if (next == null || next === cursor) return;
      cursor = next;
      idsBefore = ids;
      ids = [];
      known = 0;
      isMoved = true;
      moves++;
    },
    add: (id) => void ids.push(id),
  };
}
