/**
 * The rule that makes each event come once: the newest cursor, the ids that came under it, and those
 * that came under the one before (docs/protocol.md). Those under a few cursors more serve tabs that follow one another.
 *
 * A client has two places. `arrived` is moved when a frame comes, and says what is new and from where to
 * come back; `kept` when it was handled, and is what the store keeps. Both see the same frames in the
 * same order, so the second becomes what the first was.
 */

import { CURSORS_MAX, JOIN_CURSORS } from './bounds.js';
import { type IdSet, idSet } from './ids.js';
import type { Place, PlaceChange } from './stores/store.js';
import type { ResetEvent } from './types.js';

/** Where the newest frame was. */
export interface Arrived {
  readonly cursor: string | null;
  /** Whether an event with this id has come under this cursor or one of those before. */
  has(id: number): boolean;
  /** Whether all ids are known that came under that cursor, the one before, and since. */
  reaches(cursor: string | null): boolean;
  /** The newest cursors of which that is so. */
  readonly passed: readonly string[];
  replace(place: Place): void;
  /** Moves to `cursor`, if it is one and another. */
  move(cursor: string | null | undefined): void;
  /** Keeps the id under the present cursor. Returns whether it was not there yet. */
  add(id: number): boolean;
}

/** A place that nothing was handled after. */
export const placeAt = (cursor: string | null): Place => ({ cursor, ids: [], idsBefore: [] });

export function arrivedAt(from: Place): Arrived {
  /** The newest first: each cursor with the ids that came under it. */
  let parts: { readonly cursor: string | null; readonly ids: IdSet }[];

  function replace({ cursor, ids, idsBefore }: Place): void {
    parts = [
      { cursor, ids: idSet(ids) },
      { cursor: null, ids: idSet(idsBefore) },
    ];
  }

  /** But the oldest, since nothing is known of before it. */
  const passed = (): (string | null)[] => parts.slice(0, -1).map(({ cursor }) => cursor);

  replace(from);
  return {
    get cursor() {
      return parts[0]!.cursor;
    },
    has: (id) => parts.some(({ ids }) => ids.has(id)),
    reaches: (cursor) => passed().some((part) => part === cursor),
    get passed() {
      return passed().slice(0, JOIN_CURSORS).filter((cursor) => cursor !== null);
    },
    replace,
    move(next) {
      if (next == null || next === parts[0]!.cursor) return;
      parts = [{ cursor: next, ids: idSet() }, ...parts.slice(0, CURSORS_MAX - 1)];
    },
    add: (id) => parts[0]!.ids.add(id),
  };
}

/** Where the newest frame was whose handlers have ended. */
export interface Kept {
  /** Whether the store has a place. */
  readonly isThere: boolean;
  /** What there is to save, by the tab with this term; nothing when nothing has changed since `saved`. */
  change(term?: number): PlaceChange | undefined;
  /** The newest change is in the store. */
  saved(): void;
  /** The store may have another place: the next change is whole. */
  forget(): void;
  /** In which frame the place is. */
  frame: number | undefined;
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
  /** When the newest change was made: how many ids there were under its cursor, and how often the place had moved. */
  let taken = { count: 0, moves: 0 };
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
    frame: from?.frame,
    get isThere() {
      return isThere;
    },
    forget() {
      isThere = false;
    },
    change(term) {
      if (!isMoved && known === ids.length) return undefined;
      const { frame } = this;
      const [all, count, before] = [ids, ids.length, known];
      const isWhole = isMoved || !isThere;
      taken = { count, moves };
      return {
        cursor,
        idsBefore,
        term,
        frame,
        // Made when they are read: most stores need one of them.
        get ids() {
          return all.slice(0, count);
        },
        get added() {
          return isWhole ? undefined : all.slice(before, count);
        },
      };
    },
    saved() {
      isThere = true;
      // It may have moved on meanwhile.
      if (taken.moves !== moves) return;
      known = taken.count;
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

/** Moves a place to where a reset goes on. */
export function follow(
  place: { replace(place: Place): void; move(cursor: string): void },
  { reason, cursor }: ResetEvent,
): void {
  // In another history the ids begin anew, and one that is known may be that of another event.
  const isOther = reason === 'history' || reason === 'future';
  if (isOther || cursor === null) place.replace(placeAt(cursor));
  else place.move(cursor);
}
