/** Any store, as one that never fails: what cannot be read or written is reported, and memory takes its place. */

import { STORE_TIMEOUT_MS } from '../bounds.js';
import { type RealtimeError, failure } from '../errors.js';
import type { groupOf } from '../group.js';
import { limited } from '../timer.js';
import { type CursorStore, type Place, type PlaceChange, placeOf } from './store.js';

export interface SturdyStore {
  /** With the name, by which tabs share it. */
  readonly sharedName: string | undefined;
  readonly share: typeof groupOf | undefined;
  /** The place; `isLost` if nobody knows whether there was one, `isKept` if the store has it. */
  load(): Promise<{ place: Place | null; isLost: boolean; isKept: boolean }>;
  /** Whether it is in the store now. */
  save(change: PlaceChange): Promise<boolean>;
}

export function sturdy(
  store: CursorStore,
  report: (error: RealtimeError) => void,
  timeoutMs = STORE_TIMEOUT_MS,
): SturdyStore {
  /** The newest place, if the store does not have it. */
  let memory: Place | undefined;
  /** Reported once until it works again. */
  let isFailing = false;
  /** A call that took too long, and still does. */
  let late: Promise<unknown> | undefined;
  /** The call that is being made: there is one at a time, whoever makes it. */
  let busy: Promise<void> | undefined;
  let saves = 0;

  /** `done` is given the result before the next call is made. */
  async function attempt<T>(call: () => T | Promise<T>, done?: (result?: T) => void): Promise<T | undefined> {
    while (busy) await busy;
    if (late) return void done?.();
    let free!: () => void;
    busy = new Promise((resolve) => (free = resolve));
    try {
      let called: Promise<T>;
      const result = await limited(timeoutMs, () => (called = Promise.resolve(call())), () => {
        const over = (): void => void (late = undefined);
        late = called.then(over, over);
      });
      isFailing = false;
      done?.(result);
      return result;
    } catch (cause) {
      if (!isFailing) report(failure('store', cause));
      isFailing = true;
      return void done?.();
    } finally {
      busy = undefined;
      free();
    }
  }

  return {
    sharedName: store.sharedName,
    share: store.share as typeof groupOf | undefined,
    async load() {
      while (busy) await busy;
      if (memory) return { place: memory, isLost: false, isKept: false };
      const found = await attempt(async () => checked((await store.load()) ?? null));
      return { place: found ?? null, isLost: found === undefined, isKept: true };
    },
    async save(change) {
      const mine = ++saves;
      const save = async (): Promise<true> => {
        await store.save(change);
        return true;
      };
      const isSaved = await attempt(save, (isKept) => {
        // A newer one may wait already.
        if (mine === saves) memory = isKept ? undefined : placeOf(change);
      });
      return !!isSaved;
    },
  };
}

/** Throws for what was never saved as a place. */
function checked(place: Place | null): Place | null {
  if (place === null) return null;
  const { cursor, ids, idsBefore } = place;
  const isPlace =
    (cursor === null || typeof cursor === 'string') && [...ids, ...idsBefore].every(Number.isSafeInteger);
  if (!isPlace) throw new TypeError('what is kept is no place');
  return place;
}
