/** Signs that the network is another than it was: the page's own, a machine that has slept, a clock that was set. */

import { WAKE_GAP_MS, WATCH_INTERVAL_MS } from './bounds.js';
import { now } from './timer.js';

export interface Watcher {
  /** The network may be back, or the machine awake. */
  better(): void;
  /** The network is said to be gone. */
  worse(): void;
  /** The page is left, and may come back as it was. */
  hide(): void;
  /** It has come back. */
  show(): void;
}

/** Calls the watcher until `signal` is aborted. */
export function watchNetwork({ better, worse, hide, show }: Watcher, signal: AbortSignal): void {
  let seenAt = now();
  let wallAt = Date.now();
  const timer = setInterval(() => {
    const [passed, onTheWall] = [now() - seenAt, Date.now() - wallAt];
    seenAt += passed;
    wallAt += onTheWall;
    if (passed > WATCH_INTERVAL_MS + WAKE_GAP_MS || Math.abs(onTheWall - passed) > WAKE_GAP_MS) better();
  }, WATCH_INTERVAL_MS);
  signal.addEventListener('abort', () => clearInterval(timer));
  // Not in Node.
  const events = { online: better, offline: worse, pagehide: hide, pageshow: show };
  for (const [name, call] of Object.entries(events)) globalThis.addEventListener?.(name, call, { signal });
  globalThis.document?.addEventListener('resume', better, { signal });
}
