/** How long to wait before the next connection. */

import { BACKOFF_FIRST_MS, BACKOFF_LONGEST_MS } from './bounds.js';

/**
 * The wait in ms after so many failures in a row. It doubles from `firstMs` to `longestMs`; of that, a
 * random share is taken, all of it at random, so that clients which lost one server do not come to the
 * next one together.
 */
export const backoffMs = (
  failures: number,
  random: () => number = Math.random,
  { firstMs = BACKOFF_FIRST_MS, longestMs = BACKOFF_LONGEST_MS } = {},
): number => random() * Math.min(firstMs * 2 ** (failures - 1), longestMs);
