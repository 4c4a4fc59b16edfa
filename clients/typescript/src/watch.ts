/** Signs that the network is another than it was: the page's own, and a machine that has slept. */

import { WAKE_GAP_MS, WATCH_INTERVAL_MS } from './bounds.js';

/**
 * Calls `better` when the network is back or the machine awake, `worse` when the network is said to be
 * gone, until `signal` is aborted.
 */
export function watchNetwork(better: () => void, worse: () => void, signal: AbortSignal): void {
  let seenAt = Date.now();
  const timer = setInterval(() => {
    const before = seenAt;
    seenAt = Date.now();
    if (seenAt - before > WATCH_INTERVAL_MS + WAKE_GAP_MS) better();
  }, WATCH_INTERVAL_MS);
  signal.addEventListener('abort', () => clearInterval(timer));
  // Not in Node.
  globalThis.addEventListener?.('online', better, { signal });
  globalThis.addEventListener?.('offline', worse, { signal });
}
