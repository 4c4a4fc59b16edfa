/** What the library says of itself: to the listeners of `state` and `error`, to the logger, else on the console. */

import type { LogEntry } from './types.js';

/** What code of the application's throws or rejects with, where nothing waits for it. */
export function uncaught(cause: unknown): void {
  const { reportError = console.error } = globalThis as { reportError?: (cause: unknown) => void };
  try {
    reportError(cause);
  } catch {
    // One that throws, as some test runners make it, is heard by nobody.
  }
}

/** Calls code of the application's that nothing waits for. It cannot hurt who calls it. */
export function call<T>(work: (value: T) => unknown, value: T): void {
  try {
    Promise.resolve(work(value)).catch(uncaught);
  } catch (cause) {
    uncaught(cause);
  }
}

/** Without a logger, warnings and errors go to the console. */
export function toConsole({ level, event, message, error }: LogEntry): void {
  if (level === 'warn' || level === 'error') {
    console[level](`hushnet-realtime: ${event}: ${message}`, ...(error ? [error] : []));
  }
}
