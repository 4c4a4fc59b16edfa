/** How long to wait before another try. */

import { BACKOFF_FIRST_MS, BACKOFF_LONGEST_MS, RETRY_FIRST_MS, RETRY_LONGEST_MS } from './bounds.js';

/**
 * The wait in ms before the next connection, after so many failures in a row. It doubles from `firstMs` to
 * `longestMs`; of that, a random share is taken, all of it at random, so that clients which lost one server
 * do not come to the next one together.
 */
export const backoffMs = (
  failures: number,
  random: () => number = Math.random,
  { firstMs = BACKOFF_FIRST_MS, longestMs = BACKOFF_LONGEST_MS } = {},
): number => random() * Math.min(firstMs * 2 ** (failures - 1), longestMs);

/** The wait in ms before a failed handler is called again: from a half of a doubling time to all of it. */
export const retryMs = (attempt: number, random: () => number = Math.random): number =>
  Math.min(RETRY_FIRST_MS * 2 ** attempt, RETRY_LONGEST_MS) * (0.5 + random() / 2);
