/**
 * Hands frames on, one at a time and in the order in which they came, and moves the kept place after
 * each, when its handlers have ended.
 *
 * Never holds more than its bound: it then refuses a frame as if that had not come, so that whoever
 * comes back with `arrived.cursor` gets it again. Fails by telling its owner, and stands still then.
 */

import { QUEUE_CHARACTERS_MAX, QUEUE_FRAMES_MAX } from './bounds.js';
import { type RealtimeError, failure } from './errors.js';
import { type Frame, isHanded } from './frames.js';
import { type MovingPlace, movingPlace, placeAt } from './place.js';
import type { CursorStore, Place } from './stores/store.js';
import type { ClientOptions, RealtimeEvent, ResetEvent } from './types.js';

/** What is thrown into a handler that left without saying whether it has handled its event. */
export const LEFT = Symbol();

/** What a reset's handler may give: a cursor. */
export type Given = string | null | undefined | void;

export interface PumpOwner {
  /** Runs an event's handlers, or a reset's. */
  hand(frame: RealtimeEvent | ResetEvent): Promise<Given>;
  /** The event was handled, and that is kept. */
  onHandled(event: RealtimeEvent): void;
  report(error: RealtimeError): void;
  /** A handler failed and the stream must not go on. `LEFT` if it only left. */
  onFailed(error: unknown): void;
  /** Leaves the connection: `arrived` is another now, and what still comes is of no use. */
  leave(reason: 'restart'): unknown;
}

export interface Pump {
  /** Where the newest frame was: what is new, and from where to come back. */
  readonly arrived: MovingPlace;
  /** Takes a frame. Returns whether there was room for it. */
  accept(frame: Frame, characters?: number): boolean;
  /** When everything that has come was handled, or will never be. */
  idle(): Promise<void>;
  /** Hands out nothing more. What is being handled is handled to its end: see `idle`. */
  stop(): void;
  /** Goes on from elsewhere. */
  replace(place: Place): Promise<void>;
}

/** What moves the place without being handed on: ids that are known, and a cursor. */
interface Mark {
  readonly type: null;
  cursor: string | null | undefined;
  ids: number[];
}

type Entry = RealtimeEvent | ResetEvent | Mark;

export function pumpOf(
  store: CursorStore,
  place: Place | null,
  { queueFramesMax = QUEUE_FRAMES_MAX, onHandlerError }: ClientOptions,
  owner: PumpOwner,
): Pump {
  const arrived = movingPlace(place);
  /** Where the newest frame was whose handlers have ended. */
  const kept = movingPlace(place);
  /** Each with the characters of its JSON. */
  let queue: [Entry, number][] = [];
  /** The characters of all. */
  let waiting = 0;
  let running: Promise<void> | undefined;
  let isStopped = false;

  function put(entry: Entry, characters = 0): void {
    queue.push([entry, characters]);
    waiting += characters;
    running ??= run();
  }

  function mark(cursor: string | null | undefined, id: number | undefined): void {
    if ((cursor ?? arrived.cursor) === arrived.cursor && id === undefined) return;
    // Two in a row are one, or repetitions would fill the queue without bringing anything. The ids
    // of both are then under the later cursor, which keeps them for longer than need be.
    let last = queue.at(-1)?.[0];
    if (last?.type !== null) put((last = { type: null, cursor, ids: [] }));
    last.cursor = cursor ?? last.cursor;
    if (id !== undefined) last.ids.push(id);
  }

  function clear(): void {
    queue = [];
    waiting = 0;
  }

  function accept(frame: Frame, characters?: number): boolean {
    const { id, cursor } = frame as RealtimeEvent;
    if (!isHanded(frame) || arrived.has(id!)) mark(cursor, id);
    else if (queue.length >= queueFramesMax || waiting >= QUEUE_CHARACTERS_MAX) return false;
    else put(frame as Entry, characters);
    if (frame.type === 'reset') follow(arrived, frame);
    else {
      arrived.move(cursor);
      if (id !== undefined) arrived.add(id);
    }
    return true;
  }

  async function run(): Promise<void> {
    // The caller has to have put down where it is before a handler looks.
    await null;
    try {
      for (let next; (next = queue.shift()); ) {
        waiting -= next[1];
        await take(next[0]);
      }
    } catch (error) {
      stop();
      owner.onFailed(error);
    }
    running = undefined;
  }

  async function take(entry: Entry): Promise<void> {
    const given = entry.type === null ? null : await hand(entry);
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
    const moved = kept.move(entry.cursor);
    const ids = entry.type === null ? entry.ids : [entry.id];
    if (ids.filter((id) => id !== undefined && kept.add(id)).length || moved) await save();
    if (entry.type !== null) owner.onHandled(entry);
  }

  async function hand(frame: RealtimeEvent | ResetEvent): Promise<Given> {
    try {
      return await owner.hand(frame);
    } catch (cause) {
      if (cause === LEFT) throw LEFT;
      const error = failure('handler', cause);
      if (onHandlerError !== 'skip') throw error;
      owner.report(error);
    }
  }

  async function save(): Promise<void> {
    try {
      await store.save(kept);
    } catch (cause) {
      owner.report(failure('store', cause));
    }
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
  }

  return { arrived, accept, idle, stop, replace };
}

/** Moves a place to where a reset goes on. */
function follow(place: MovingPlace, { reason, cursor }: ResetEvent): void {
  // In another history the ids begin anew, and one that is known may be that of another event.
  const isOther = reason === 'history' || reason === 'future';
  if (isOther || cursor === null) place.replace(placeAt(cursor));
  else place.move(cursor);
}
