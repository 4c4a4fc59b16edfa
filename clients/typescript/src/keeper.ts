/**
 * Keeps in the store how far the handlers are: one save for so many frames, or for so much time. Of tabs that share
 * the store it keeps how far all of them are.
 */

import { SAVE_EVENTS_MAX, SAVE_INTERVAL_MS } from './bounds.js';
import type { At, Group } from './group.js';
import { follow, keptAt } from './place.js';
import type { Place } from './stores/store.js';
import type { SturdyStore } from './stores/sturdy.js';
import { type Timer, later, now } from './timer.js';
import type { ResetEvent } from './types.js';

/** What moves the place: a frame that was handled. */
export interface Step {
  readonly cursor?: string | null | undefined;
  readonly ids: Iterable<number>;
  /** Its number among the tabs. */
  readonly at: At | undefined;
  /** Set if it was a reset. */
  readonly reset?: ResetEvent | undefined;
}

export interface Keeper {
  /** Whether a save is due. */
  readonly isDue: boolean;
  /** Notes that a frame was handled. */
  note(step: Step): void;
  /** Saves what there is, and waits for it. */
  save(): Promise<void>;
  /** Saves before long. */
  saveSoon(): void;
  /** Goes on from elsewhere. */
  replace(place: Place): Promise<void>;
  /** What is in the store may be another tab's. */
  forget(): void;
  /** Saves nothing from now on. */
  abandon(): void;
}

export interface KeeperOwner {
  /** The tabs that share the store, if any. */
  group(): Group | undefined;
  /** Whether it is this one that writes it. */
  maySave(): boolean;
}

export function keeperOf(
  store: SturdyStore,
  { place, isKept }: { readonly place: Place | null; readonly isKept: boolean },
  stepsMax: number,
  { group: groupNow, maySave }: KeeperOwner,
): Keeper {
  const kept = keptAt(place, isKept);
  /** Those that another tab has not handled yet. */
  let steps: Step[] = [];
  /** Steps since the last save, and when the first of them was. */
  let unsaved = 0;
  let unsavedAt = 0;
  let saving: Timer;
  /** Those of the save that is being made. */
  let flying = 0;
  let inFlight: Promise<boolean> | undefined;
  let isAbandoned = false;

  function saveSoon(): void {
    // Also while a handler takes long, or is called again.
    saving ??= later(SAVE_INTERVAL_MS, save);
  }

  /** Moves the place by what all tabs have handled. Of more steps than there may be, the oldest are not waited for. */
  function move(): void {
    const group = groupNow();
    let count = 0;
    for (const step of steps) {
      if (steps.length - count <= stepsMax && group && !group.mayKeep(step.at)) break;
      const { cursor, ids, at, reset } = step;
      if (reset) follow(kept, reset);
      else kept.move(cursor);
      for (const id of ids) kept.add(id);
      kept.frame = group?.positionAt(at)?.frame;
      count++;
    }
    steps.splice(0, count);
  }

  async function save(): Promise<void> {
    clearTimeout(saving);
    saving = undefined;
    while (inFlight) await inFlight;
    move();
    [flying, unsaved] = [unsaved, 0];
    const group = groupNow();
    group?.acknowledge();
    const change = isAbandoned || !maySave() ? undefined : kept.change(group?.term);
    if (change) {
      inFlight = store.save(change);
      if (await inFlight) {
        kept.saved();
        if (change.frame) group?.saved(change.frame);
      }
      inFlight = undefined;
    }
    flying = 0;
  }

  return {
    get isDue() {
      // The first place at once: without one, whoever comes back begins at the present.
      const isFirst = !kept.isThere && maySave();
      return unsaved > 0 && (isFirst || unsaved + flying >= SAVE_EVENTS_MAX || now() - unsavedAt >= SAVE_INTERVAL_MS);
    },
    note(step) {
      steps.push(step);
      groupNow()?.handled(step.at);
      if (!unsaved++) unsavedAt = now();
      saveSoon();
    },
    save,
    saveSoon,
    replace(place) {
      steps = [];
      kept.replace(place);
      kept.frame = undefined;
      return save();
    },
    forget: kept.forget,
    abandon() {
      isAbandoned = true;
      clearTimeout(saving);
    },
  };
}
