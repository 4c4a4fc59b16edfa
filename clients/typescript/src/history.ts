/** The numbered frames of a leader's stream, from the place in the store on: what a tab that joins is given. */

import { JOIN_CURSORS, QUEUE_CHARACTERS_MAX, QUEUE_FRAMES_MAX } from './bounds.js';
import type { Frame } from './frames.js';
import type { RealtimeEvent } from './types.js';

export interface History {
  /** The number of the newest frame. */
  readonly last: number;
  /** Up to which frame the store is, as far as this tab knows. */
  readonly saved: number;
  /** The newest cursor of the stream. */
  cursor: string | null;
  /** Adds a frame. Returns its number. */
  add(frame: Frame, characters: number): number;
  /** Whether all frames from this one on are there, so that whoever has those before can go on. */
  has(first: number): boolean;
  since(first: number): (readonly [Frame, number])[];
  /**
   * From where a tab can go on that has passed these cursors on a connection of its own, and knows all ids since a time
   * before the oldest of them: the first frame after such a cursor, if it has passed a later one as well.
   */
  after(cursors: readonly string[]): number | undefined;
  /** The cursor that came first in that frame. */
  cursorOf(number: number): string | null;
  /** Makes this frame the newest: those after it are others now, or were missed. */
  rewind(last: number): void;
  /** The place after this frame is in the store. */
  forget(frame: number): void;
}

/** Begins after the frame of that number. */
export function historyOf(last: number, cursor: string | null, framesMax = QUEUE_FRAMES_MAX): History {
  let frames: (readonly [Frame, number])[] = [];
  let characters = 0;
  let saved = 0;
  /** The newest cursors, and in which frame each came first. */
  let cursors: (readonly [cursor: string, number: number])[] = [];
  /** How many frames are of use for one that has loaded the place before the newest. */
  const drop = (count: number): void => {
    for (const [, length] of frames.splice(0, count)) characters -= length;
  };
  return {
    cursor,
    get last() {
      return last;
    },
    get saved() {
      return saved;
    },
    add(frame, length) {
      frames.push([frame, length]);
      characters += length;
      const { cursor } = frame as RealtimeEvent;
      this.cursor = cursor ?? this.cursor;
      // What was before a reset is of no use after it.
      if (frame.type === 'reset') cursors = [];
      else if (cursor && cursor !== cursors.at(-1)?.[0]) {
        cursors = [...cursors, [cursor, last + 1] as const].slice(-JOIN_CURSORS);
      }
      // Half at once, since it costs as much as one.
      if (frames.length > framesMax || characters > QUEUE_CHARACTERS_MAX) drop(Math.ceil(frames.length / 2));
      return ++last;
    },
    has: (first) => first > last - frames.length && first <= last + 1,
    since: (first) => frames.slice(frames.length - 1 - last + first),
    after(passed) {
      const common = cursors.filter(([cursor]) => passed.includes(cursor));
      return common.length > 1 ? common.at(-2)![1] + 1 : undefined;
    },
    cursorOf: (number) => cursors.find(([, at]) => at === number)?.[0] ?? null,
    rewind(to) {
      const kept = frames.length + to - last;
      if (to <= last && kept >= 0) for (const [, length] of frames.splice(kept)) characters -= length;
      else drop(frames.length);
      last = to;
      cursors = cursors.filter(([, number]) => number <= to);
    },
    forget(frame) {
      // One place further back: a tab may have loaded the one before. And a few cursors, for tabs that come back.
      drop(Math.max(0, frames.length - (last - Math.min(saved, cursors[0]?.[1] ?? saved))));
      saved = Math.max(saved, frame);
    },
  };
}
