/**
 * Hands frames on, one at a time and in the order in which they came, and tells the keeper of each when its
 * handlers have ended.
 *
 * Never holds more than its bound: it then refuses a frame as if that had not come, so that whoever
 * comes back with `arrived.cursor` gets it again. Fails by telling its owner, and stands still then.
 */

import { QUEUE_CHARACTERS_MAX, QUEUE_FRAMES_MAX } from './bounds.js';
import { type Frame, isHanded } from './frames.js';
import type { At } from './group.js';
import { type Keeper, type KeeperOwner, keeperOf } from './keeper.js';
import { type Arrived, arrivedAt, follow, placeAt } from './place.js';
import type { Place } from './stores/store.js';
import type { SturdyStore } from './stores/sturdy.js';
import type { ClientOptions, RealtimeEvent, ResetEvent } from './types.js';

/** What is thrown into a handler that left without saying whether it has handled its event. */
export const LEFT = Symbol();
/** What is thrown for an event whose handlers ended after the client was closed: it is to come again. */
export const OVER = Symbol();

/** What a reset's handler may give: a cursor. */
export type Given = string | null | undefined | void;

export interface PumpOwner extends KeeperOwner {
  /** Runs an event's handlers, or a reset's. */
  hand(frame: RealtimeEvent | ResetEvent): Promise<Given>;
  /** An event was handled. */
  onHandled(): void;
  /** A handler failed and the stream must not go on. `LEFT` if it only left, `OVER` if it came too late. */
  onFailed(error: unknown): void;
  /** Leaves the connection: `arrived` is another now, and what still comes is of no use. */
  leave(reason: 'restart'): unknown;
}

export interface Pump {
  /** Where the newest frame was: what is new, and from where to come back. */
  readonly arrived: Arrived;
  readonly keeper: Keeper;
  /** Takes a frame. Returns whether there was room for it. */
  accept(frame: Frame, characters?: number, at?: At): boolean;
  /** Notes where among the tabs' frames everything is that has come. */
  mark(at: At): void;
  /** When everything that has come was handled, or will never be, and its place is kept. */
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
  ids: Set<number>;
  at: At | undefined;
}

type Entry = RealtimeEvent | ResetEvent | Mark;

/** What waits: with the characters of its JSON, and its number. */
interface Waiting {
  readonly entry: Entry;
  readonly characters: number;
  readonly at: At | undefined;
}

export function pumpOf(
  store: SturdyStore,
  loaded: { readonly place: Place | null; readonly isKept: boolean },
  { queueFramesMax = QUEUE_FRAMES_MAX, kinds }: ClientOptions,
  owner: PumpOwner,
): Pump {
  const arrived = arrivedAt(loaded.place ?? placeAt(null));
  const keeper = keeperOf(store, loaded, queueFramesMax, owner);
  let queue: Waiting[] = [];
  /** The characters of all. */
  let waiting = 0;
  let running: Promise<void> | undefined;
  let isStopped = false;

  function put(entry: Entry, characters = 0, at?: At): void {
    queue.push({ entry, characters, at });
    waiting += characters;
    running ??= run();
  }

  function mark(cursor: string | null | undefined, id: number | undefined, at: At | undefined): void {
    if (!cursor && id === undefined && !at) return;
    // Two in a row are one, or repetitions would fill the queue without bringing anything. The ids
    // of both are then under the later cursor, which keeps them for longer than need be.
    let last = queue.at(-1)?.entry;
    if (last?.type !== null) put((last = { type: null, cursor, ids: new Set(), at }));
    last.cursor = cursor ?? last.cursor;
    last.at = at;
    if (id !== undefined) last.ids.add(id);
  }

  function clear(): void {
    queue = [];
    waiting = 0;
  }

  function accept(frame: Frame, characters?: number, at?: At): boolean {
    const { id, cursor } = frame as RealtimeEvent;
    // The server sends no other kinds, but another tab may have asked for them.
    const isWanted = !kinds || frame.type === 'reset' || kinds.includes(frame.type);
    const isNew = isHanded(frame) && isWanted && (id === undefined || !arrived.has(id));
    if (isNew) {
      if (queue.length >= queueFramesMax || waiting >= QUEUE_CHARACTERS_MAX) return false;
      put(frame as Entry, characters, at);
    }
    const before = arrived.cursor;
    if (frame.type === 'reset') follow(arrived, frame);
    else arrived.move(cursor);
    const isAdded = id !== undefined && arrived.add(id);
    if (!isNew) mark(before === arrived.cursor ? null : cursor, isAdded ? id : undefined, at);
    return true;
  }

  async function run(): Promise<void> {
    // The caller has to have put down where it is before a handler looks.
    await null;
    try {
      for (let next; (next = queue.shift()); ) {
        waiting -= next.characters;
        await take(next);
        if (keeper.isDue) await keeper.save();
      }
    } catch (error) {
      stop();
      owner.onFailed(error);
    }
    running = undefined;
  }

  async function take({ entry, at }: Waiting): Promise<void> {
    if (entry.type === null) return keeper.note(entry);
    const given = await owner.hand(entry);
    const { id, cursor } = entry as RealtimeEvent;
    if (entry.type !== 'reset') {
      keeper.note({ cursor, ids: id === undefined ? [] : [id], at });
      return owner.onHandled();
    }
    if (given && given !== cursor && !isStopped) {
      const saved = replace(placeAt(given));
      // Before anything is waited for: what the connection brings now is after another cursor.
      owner.leave('restart');
      return saved;
    }
    keeper.note({ ids: [], at, reset: entry as ResetEvent });
    return keeper.save();
  }

  function stop(): void {
    isStopped = true;
    clear();
  }

  function replace(place: Place): Promise<void> {
    clear();
    arrived.replace(place);
    return keeper.replace(place);
  }

  async function idle(): Promise<void> {
    while (running) await running;
    await keeper.save();
  }

  return { arrived, keeper, accept, mark: (at) => mark(null, undefined, at), idle, stop, replace };
}
