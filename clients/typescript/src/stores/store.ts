/** What a store has to do: keep one place in the stream across page loads and restarts. */

/** A place in the stream: everything up to `cursor` was handled, and of what follows, these ids. */
export interface Place {
  /** Opaque; `null` when there is none yet, or in a database without a log. */
  readonly cursor: string | null;
  /** Ids of the events that were handled under `cursor`. */
  readonly ids: readonly number[];
  /** Ids of those under the cursor before, which the server may send again. */
  readonly idsBefore: readonly number[];
}

/**
 * Keeps a place. The client calls it for one thing at a time, and hands out the next event only after
 * `save` has ended. A failed `save` is reported and the stream goes on; a failed `load` closes the client.
 */
export interface CursorStore {
  /**
   * Names what tabs share. With a name, and Web Locks, one tab at a time has the stream and writes
   * here. Without one, the store belongs to its client alone.
   */
  readonly sharedName?: string;
  /** The place that was saved last, or `null`. */
  load(): Place | null | Promise<Place | null>;
  /**
   * Keeps the place. It moves on afterwards: what is kept has to be a copy, or is always the newest.
   * `ids` and `idsBefore` are made when they are read, and cost as much as there are.
   */
  save(place: Place): void | Promise<void>;
  /** Forgets the place, as at a user's logging out. */
  clear(): void | Promise<void>;
}
