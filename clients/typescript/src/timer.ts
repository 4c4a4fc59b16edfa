/** Times: `now` is never set back, and stands still while most systems sleep. */

import { TIMER_MAX_MS } from './bounds.js';

export type Timer = ReturnType<typeof setTimeout> | undefined;

/** In ms, from some beginning. */
export const now = (): number => performance.now();

/** Timers may be set for longer than the platform's own bound, and then end at that. */
export const later = (ms: number, work: () => void): Timer =>
  setTimeout(work, Math.min(ms, TIMER_MAX_MS));

/** What `work` gives; rejects when that takes longer, and then calls `late`. */
export async function limited<T>(ms: number, work: () => Promise<T>, late?: () => void): Promise<T> {
  let timer: Timer;
  const limit = new Promise<never>((_, reject) => {
    timer = later(ms, () => {
      late?.();
      reject(new Error(`took longer than ${ms} ms`));
    });
  });
  try {
    return await Promise.race([work(), limit]);
  } finally {
    clearTimeout(timer);
  }
}
