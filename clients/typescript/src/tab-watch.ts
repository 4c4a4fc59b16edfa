/** Whether the tab that leads is there, and seen: else one that is seen takes over. */

import { ASK_INTERVAL_MS, HIDDEN_TIMEOUT_MS, SILENT_TIMEOUT_MS } from './bounds.js';
import { now } from './timer.js';

export interface LeaderWatchOwner {
  /** Called at each interval. Whether the tab follows one that leads. */
  onTick(): boolean;
  /** Asks the leading tab whether it is there. */
  ask(): void;
  /** It has been silent or hidden for too long, while this tab was seen. */
  onSilent(): void;
}

export interface LeaderWatch {
  /** A message of the leading tab has come, which may say that the user sees it. */
  received(isVisible: boolean): void;
  /** Another tab leads. */
  restart(): void;
  stop(): void;
}

/** Whether the user may see this tab. */
export const isVisible = (): boolean =>
  (globalThis as { document?: Document }).document?.visibilityState !== 'hidden';

export function leaderWatch({ onTick, ask, onSilent }: LeaderWatchOwner): LeaderWatch {
  let receivedAt = now();
  let shownAt = receivedAt;
  let tickAt = receivedAt;
  let wasVisible = isVisible();

  function restart(): void {
    receivedAt = shownAt = now();
  }

  const timer = setInterval(() => {
    const isLate = now() - tickAt > 2 * ASK_INTERVAL_MS;
    tickAt = now();
    // Time counts while the user sees this tab, and while it was not held up itself.
    if (isLate || !wasVisible || !isVisible()) restart();
    wasVisible = isVisible();
    if (!onTick() || !wasVisible) return;
    // One that says nothing does not say that it is hidden.
    if (tickAt - receivedAt >= SILENT_TIMEOUT_MS || receivedAt - shownAt >= HIDDEN_TIMEOUT_MS) onSilent();
    else ask();
  }, ASK_INTERVAL_MS);

  return {
    received(isShown) {
      receivedAt = now();
      if (isShown) shownAt = receivedAt;
    },
    restart,
    stop: () => clearInterval(timer),
  };
}
