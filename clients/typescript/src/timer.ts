/** Timers that may be set for longer than the platform's own bound, and then end at that. */

import { TIMER_MAX_MS } from './bounds.js';

export type Timer = ReturnType<typeof setTimeout> | undefined;

export const later = (ms: number, work: () => void): Timer =>
  setTimeout(work, Math.min(ms, TIMER_MAX_MS));
