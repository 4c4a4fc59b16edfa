/**
 * Hands frames on, one at a time and in the order in which they came, and moves the kept place after
 * each, when its handlers have ended.
 *
 * Never holds more than its bound: it then refuses a frame as if that had not come, so that whoever
 * comes back with `arrived.cursor` gets it again. Fails by telling its owner, and stands still then.
 */

import { QUEUE_CHARACTERS_MAX, QUEUE_FRAMES_MAX, SAVE_EVENTS_MAX, SAVE_INTERVAL_MS } from './bounds.js';
import { type Frame, isHanded } from './frames.js';
import { type Arrived, arrivedAt, keptAt, placeAt } from './place.js';
import type { Place } from './stores/store.js';
import type { SturdyStore } from './stores/sturdy.js';
import { type Timer, later, now } from './timer.js';
import type { ClientOptions, RealtimeEvent, ResetEvent } from './types.js';

/** What is thrown into a handler that left without saying whether it has handled its event. */
export const LEFT = Symbol();
/** What is thrown for an event whose handlers ended after the client was closed: it is to come again. */
export const OVER = Symbol();

/** What a reset's handler may give: a cursor. */
export type Given = string | null | undefined | void;

export interface PumpOwner {
  /** Runs an event's handlers, or a reset's. */
  hand(frame: RealtimeEvent | ResetEvent): Promise<Given>;
  /** The event was handled. */
  onHandled(event: RealtimeEvent): void;
  /** A handler failed and the stream must not go on. `LEFT` if it only left, `OVER` if it came too late. */
  onFailed(error: unknown): void;
  /** Leaves the connection: `arrived` is another now, and what still comes is of no use. */
  leave(reason: 'restart'): unknown;
}

export interface Pump {
  /** Where the newest frame was: what is new, and from where to come back. */
  readonly arrived: Arrived;
  /** Takes a frame. Returns whether there was room for it. */
  accept(frame: Frame, characters?: number): boolean;
  /** When everything that has come was handled, or will never be, and its place is kept. */
  idle(): Promise<void>;
  /** Hands out nothing more. What is being handled is handled to its end: see `idle`. */
  stop(): void;
  /** Goes on from elsewhere. */
  replace(place: Place): Promise<void>;
  /** Saves nothing from now on. */
  abandon(): void;
}

/** What moves the place without being handed on: ids that are known, and a cursor. */
interface Mark {
  readonly type: null;
  cursor: string | null | undefined;
  ids: Set<number>;
}

type Entry = RealtimeEvent | ResetEvent | Mark;

export function pumpOf(
  store: SturdyStore,
  { place, isKept }: { readonly place: Place | null; readonly isKept: boolean },
  { queueFramesMax = QUEUE_FRAMES_MAX }: ClientOptions,
  owner: PumpOwner,
): Pump {
  const arrived = arrivedAt(place ?? placeAt(null));
  const kept = keptAt(place, isKept);
  /** Each with the characters of its JSON. */
  let queue: [Entry, number][] = [];
  /** The characters of all. */
  let waiting = 0;
  let running: Promise<void> | undefined;
  let isStopped = false;
  let isAbandoned = false;
  /** Frames that were handled since the last save, and when the first of them was. */
  let unsaved = 0;
  let unsavedAt = 0;
  let saving: Timer;
  /** Those of the save that is being made. */
  let flying = 0;
  let inFlight: Promise<boolean> | undefined;

  function put(entry: Entry, characters = 0): void {
    queue.push([entry, characters]);
    waiting += characters;
    running ??= run();
  }

  function mark(cursor: string | null | undefined, id: number | undefined): void {
    if (!cursor && id === undefined) return;
    // Two in a row are one, or repetitions would fill the queue without bringing anything. The ids
    // of both are then under the later cursor, which keeps them for longer than need be.
    let last = queue.at(-1)?.[0];
    if (last?.type !== null) put((last = { type: null, cursor, ids: new Set() }));
    last.cursor = cursor ?? last.cursor;
    if (id !== undefined) last.ids.add(id);
  }

  function clear(): void {
    queue = [];
    waiting = 0;
  }

  function accept(frame: Frame, characters?: number): boolean {
    const { id, cursor } = frame as RealtimeEvent;
    const isNew = isHanded(frame) && (id === undefined || !arrived.has(id));
    if (isNew) {
      if (queue.length >= queueFramesMax || waiting >= QUEUE_CHARACTERS_MAX) return false;
      put(frame as Entry, characters);
    }
    const before = arrived.cursor;
    if (frame.type === 'reset') follow(arrived, frame);
    else arrived.move(cursor);
    const isAdded = id !== undefined && arrived.add(id);
    if (!isNew) mark(before === arrived.cursor ? null : cursor, isAdded ? id : undefined);
    return true;
  }

  async function run(): Promise<void> {
    // The caller has to have put down where it is before a handler looks.
    await null;
    try {
      for (let next; (next = queue.shift()); ) {
        waiting -= next[1];
        await take(next[0]);
        const isDue = unsaved + flying >= SAVE_EVENTS_MAX || now() - unsavedAt >= SAVE_INTERVAL_MS;
        // The first place at once: without one, whoever comes back begins at the present.
        if (unsaved && (isDue || !kept.isThere)) await save();
      }
    } catch (error) {
      stop();
      owner.onFailed(error);
    }
    running = undefined;
  }

  async function take(entry: Entry): Promise<void> {
    const given = entry.type === null ? null : await owner.hand(entry);
    if (entry.type === 'reset') {
      if (given && given !== entry.cursor && !isStopped) {
        const saved = replace(placeAt(given));
        // Before anything is waited for: what the connection brings now is after another cursor.
        owner.leave('restart');
        return saved;
      }
      follow(kept, entry);
      return save();
    }
    kept.move(entry.cursor);
    if (entry.type === null) entry.ids.forEach(kept.add);
    else {
      if (entry.id !== undefined) kept.add(entry.id);
      owner.onHandled(entry);
    }
    if (!unsaved++) unsavedAt = now();
    // Also while a handler takes long, or is called again.
    saving ??= later(SAVE_INTERVAL_MS, save);
  }

  async function save(): Promise<void> {
    clearTimeout(saving);
    saving = undefined;
    while (inFlight) await inFlight;
    const change = isAbandoned ? undefined : kept.change();
    [flying, unsaved] = [unsaved, 0];
    if (!change) return;
    inFlight = store.save(change);
    if (await inFlight) kept.saved(change);
    inFlight = undefined;
    flying = 0;
  }

  function stop(): void {
    isStopped = true;
    clear();
  }

  function replace(place: Place): Promise<void> {
    clear();
    arrived.replace(place);
    kept.replace(place);
    return save();
  }

  async function idle(): Promise<void> {
    while (running) await running;
    await save();
  }

  function abandon(): void {
    isAbandoned = true;
    clearTimeout(saving);
  }

  return { arrived, accept, idle, stop, replace, abandon };
}

/** Moves a place to where a reset goes on. */
function follow(
  place: Pick<Arrived, 'replace'> & { move(cursor: string): void },
  { reason, cursor }: ResetEvent,
): void {
  // In another history the ids begin anew, and one that is known may be that of another event.
  const isOther = reason === 'history' || reason === 'future';
  if (isOther || cursor === null) place.replace(placeAt(cursor));
  else place.move(cursor);
}
