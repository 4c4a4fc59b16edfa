/**
 * What tabs that share a store have to do with each other: one at a time has the stream, the others
 * wait for it.
 */

import type { LockManagerLike } from './types.js';

/**
 * Does `work` while it holds the lock. If another has it, says so by `wait` and waits until that one
 * ends or dies, or `signal` is aborted. `work` is told whether there was another.
 */
export async function holdLock(
  locks: LockManagerLike,
  name: string,
  signal: AbortSignal,
  wait: () => void,
  work: (waited: boolean) => Promise<void>,
): Promise<void> {
  let isFree;
  await locks.request(name, { ifAvailable: true }, (lock) => {
    isFree = lock;
    return lock ? work(false) : undefined;
  });
  if (isFree || signal.aborted) return;
  wait();
  await locks.request(name, { signal }, () => work(true));
}
