/** What a store has to do: keep one place in the stream across page loads and restarts. */

/** A place in the stream: everything up to `cursor` was handled, and of what follows, these ids. */
export interface Place {
  /** Opaque; `null` when there is none yet, or in a database without a log. */
  readonly cursor: string | null;
  /** Ids of the events that were handled under `cursor`. */
  readonly ids: readonly number[];
  /** Ids of those under the cursor before, which the server may send again. */
  readonly idsBefore: readonly number[];
  /** Of tabs that share the store: the term of the tab that saved the place. */
  readonly term?: number | undefined;
  /** And the frame of that term after which it is, if it is one's. */
  readonly frame?: number | undefined;
}

/** A place to save. */
export interface PlaceChange extends Place {
  /** Those of `ids` that are new since the last save, if nothing else is. */
  readonly added?: readonly number[] | undefined;
}

/**
 * Keeps a place. The client calls it for one thing at a time. A call that fails, or takes longer than
 * `storeTimeoutMs`, is reported, and the client goes on with what it has in memory.
 */
export interface CursorStore {
  /** What `sharedStore` has set: the name by which tabs share the store, and how they do. */
  readonly sharedName?: string;
  readonly share?: unknown;
  /** The place that was saved last, or `null`. */
  load(): Place | null | Promise<Place | null>;
  /**
   * Keeps the place. `ids` and `added` are made when they are read, and cost as much as there are: a store
   * that appends reads `added` alone, where it is there. A store that tabs share keeps `term`, and ignores a change
   * whose term is lower than the one that it has: of a tab that was held up, and does not know that another has taken over.
   */
  save(change: PlaceChange): void | Promise<void>;
  /** Forgets the place, as at a user's logging out. */
  clear(): void | Promise<void>;
}

/** The place, without what is new in it. */
export const placeOf = ({ cursor, ids, idsBefore, term, frame }: Place): Place => ({
  ...(term && { term, frame }),
  cursor,
  ids,
  idsBefore,
});
