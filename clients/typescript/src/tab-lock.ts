/** The lock of a store that tabs share: the tab that holds it leads, and the others wait for it. */

import { later } from './timer.js';
import type { LockManagerLike } from './types.js';

/** Between two tabs that lead: terms are in the order of the times at which they begin. */
const TERM_GAP_MS = 2;

export interface LockOwner {
  /** This tab has the lock; `isFirst` if it was free when it was asked for first. */
  onHeld(isFirst: boolean): void;
  /** Another tab has taken it. This one waits for it again. */
  onTaken(): void;
  /** There are no locks here; `isFirst` as above. */
  onFailed(cause: unknown, isFirst: boolean): void;
}

export interface Lock {
  /** Until this is known, nobody knows whether the lock was free. */
  readonly entered: Promise<void>;
  /** Takes it from the tab that has it. */
  steal(): void;
  /** Gives it to the tab that waits next, and waits for it again. */
  yield(): void;
  /** Gives it away, and does not wait for it. */
  leave(): void;
}

export function lockOf(locks: LockManagerLike, name: string, { onHeld, onTaken, onFailed }: LockOwner): Lock {
  /** Counts requests: what comes of an earlier one is of no use. */
  let requests = 0;
  let queue: AbortController | undefined;
  let release = (): void => {};

  function request(how: { ifAvailable?: boolean; steal?: boolean }, known?: () => void): void {
    const mine = ++requests;
    const isOld = (): boolean => mine !== requests;
    queue?.abort();
    queue = new AbortController();
    const { signal } = queue;
    let [isHeld, isTold] = [false, false];
    const held = (lock: unknown): Promise<void> | undefined => {
      if (isOld()) return undefined;
      if (!lock) {
        request({});
        known?.();
        return undefined;
      }
      isHeld = true;
      // Not in the millisecond of a tab that has led before: terms are times.
      later(TERM_GAP_MS, () => {
        if (isOld()) return;
        isTold = true;
        onHeld(!!known);
        known?.();
      });
      return new Promise<void>((resolve) => (release = resolve));
    };
    const isQueued = !how.ifAvailable && !how.steal;
    // One that throws has refused, too.
    new Promise((resolve) => resolve(locks.request(name, isQueued ? { signal } : how, held))).catch((cause: unknown) => {
      if (isOld()) return;
      if (isHeld) request({});
      if (isTold) return onTaken();
      if (!isHeld) onFailed(cause, !!known);
      known?.();
    });
  }

  return {
    entered: new Promise((known) => request({ ifAvailable: true }, known)),
    steal: () => request({ steal: true }),
    yield() {
      release();
      request({});
    },
    leave() {
      requests++;
      queue?.abort();
      release();
    },
  };
}
