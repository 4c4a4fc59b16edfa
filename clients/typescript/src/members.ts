/** The tabs that have joined the one that leads, and what each has handled. */

import { MEMBERS_MAX, SILENT_TIMEOUT_MS } from './bounds.js';
import { now } from './timer.js';

export interface Members {
  /** Whether there are none. */
  readonly isEmpty: boolean;
  /** A tab has joined. What it has handled it says later, since what it has may wait there. */
  add(id: string): void;
  /** A tab has handled the frame, and all before. */
  acknowledge(id: string, frame: number): void;
  remove(id: string): void;
  /** All are asked. Those that were asked long ago, and have not answered since, are not waited for any more. */
  ask(): void;
  /** Whether all have handled the frame. */
  have(frame: number): boolean;
}

interface Member {
  /** The newest frame that it has handled; -1 if it has not said. */
  readonly frame: number;
  /** When it was asked first, and has not answered since; 0 if it has. */
  askedAt: number;
}

export function membersOf(): Members {
  const members = new Map<string, Member>();

  function set(id: string, frame: number): void {
    if (members.has(id) || members.size < MEMBERS_MAX) members.set(id, { frame, askedAt: 0 });
  }

  return {
    get isEmpty() {
      return !members.size;
    },
    add: (id) => set(id, -1),
    acknowledge: set,
    remove: (id) => void members.delete(id),
    ask() {
      for (const [id, member] of members) {
        if (!member.askedAt) member.askedAt = now();
        // Frozen, or gone without a word.
        else if (now() - member.askedAt >= SILENT_TIMEOUT_MS) members.delete(id);
      }
    },
    have: (frame) => [...members.values()].every((member) => frame <= member.frame),
  };
}
