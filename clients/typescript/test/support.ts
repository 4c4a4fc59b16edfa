/** What the tests share: waiting, locks as a browser has them, a storage, and clients. */

import { afterEach, beforeEach, vi } from 'vitest';
import { RealtimeClient } from '../src/index.js';
import type { ClientOptions, LockManagerLike, RealtimeError } from '../src/index.js';
import { MockRealtimeServer } from '../src/testing.js';

export const USER = '6b0f5c52-1111-4000-8000-000000000001';

/** The types that are no event's: the frames of docs/protocol.md, and the names that it keeps for others. */
export const RESERVED: readonly string[] = [
  ...['hello', 'reset', 'cursor', 'ping', 'pong', 'error', 'goaway', 'auth', 'authenticated'],
  ...['revocation', 'truncated', 'event_failed', 'barrier', 'typing', 'presence', 'receipt', 'ack'],
];

/** How long anything may take before a test fails: minutes, since the machine may be busy. */
export const DEADLINE_MS = 300_000;

/** Waits for a condition, never for a time. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + DEADLINE_MS;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`still waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Lets everything go on that waits for no timer, also under fake timers. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 50; i++) await Promise.resolve();
}

interface Held {
  readonly owner: object;
  readonly lose: () => void;
}

/** The Web Locks of one origin, of which every tab has its own view that can crash. */
export class FakeLocks {
  private held = new Map<string, Held>();
  private waiting: { name: string; owner: object; grant: () => void }[] = [];

  /** The view of one tab; `crash` gives back its locks as a browser does for a tab that died. */
  tab(): LockManagerLike & { crash(): void } {
    const owner = {};
    let isDead = false;
    return {
      request: (name, { ifAvailable, steal, signal }, callback) => {
        if (isDead) return new Promise(() => {});
        const run = (): Promise<unknown> =>
          new Promise((resolve, reject) => {
            const lock = { owner, lose: () => reject(new DOMException('stolen', 'AbortError')) };
            this.held.set(name, lock);
            // As a browser does: not before the request has returned.
            void Promise.resolve()
              .then(() => callback({ name }))
              .then(resolve, reject)
              .finally(() => {
                if (this.held.get(name) === lock) this.release(name);
              });
          });
        if (steal) {
          this.held.get(name)?.lose();
          return run();
        }
        if (!this.held.has(name)) return run();
        if (ifAvailable) return Promise.resolve().then(() => callback(null));
        return new Promise((resolve, reject) => {
          const entry = { name, owner, grant: () => run().then(resolve, reject) };
          this.waiting.push(entry);
          signal?.addEventListener('abort', () => {
            this.waiting = this.waiting.filter((other) => other !== entry);
            reject(signal.reason as Error);
          });
        });
      },
      crash: () => {
        isDead = true;
        this.waiting = this.waiting.filter((entry) => entry.owner !== owner);
        for (const [name, lock] of [...this.held]) if (lock.owner === owner) this.release(name);
      },
    };
  }

  private release(name: string): void {
    this.held.delete(name);
    const next = this.waiting.findIndex((entry) => entry.name === name);
    if (next >= 0) this.waiting.splice(next, 1)[0]!.grant();
  }
}

/** Local storage in memory, put in the place of the global one. */
export function installLocalStorage(): Map<string, string> {
  const items = new Map<string, string>();
  Object.assign(globalThis, {
    localStorage: {
      getItem: (key: string) => items.get(key) ?? null,
      setItem: (key: string, value: string) => void items.set(key, value),
      removeItem: (key: string) => void items.delete(key),
    },
  });
  return items;
}

export interface Bench {
  readonly server: MockRealtimeServer;
  readonly client: RealtimeClient;
  /** The ids that the `message` handler was given. */
  readonly ids: (number | undefined)[];
  readonly errors: RealtimeError[];
}

/** A client of a mock, that notes what it is given. */
export function bench(
  options: Partial<ClientOptions> = {},
  server: MockRealtimeServer = new MockRealtimeServer(),
): Bench {
  const client = new RealtimeClient({
    url: 'ws://mock',
    ...(options.getToken || options.signDevice ? {} : { userId: USER }),
    WebSocket: server.WebSocket,
    fetch: server.fetch,
    random: () => 1,
    ...options,
  });
  const ids: (number | undefined)[] = [];
  const errors: RealtimeError[] = [];
  client.on('message', (event) => void ids.push(event.id));
  client.on('error', (error) => void errors.push(error));
  return { server, client, ids, errors };
}

/** A token that expires so many seconds from now. It is signed by nobody. */
export function token(expiresInS: number, salt = ''): string {
  const claims = { sub: USER, exp: Math.floor(Date.now() / 1000) + expiresInS, salt };
  return `h.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.s`;
}

/** Each test of the file has a clock of its own. What is rejected and nobody catches is in the list. */
export function underFakeTimers(): readonly unknown[] {
  const rejections: unknown[] = [];
  const note = (reason: unknown): void => void rejections.push(reason);
  beforeEach(() => {
    vi.useFakeTimers();
    rejections.length = 0;
    process.on('unhandledRejection', note);
  });
  afterEach(() => {
    process.off('unhandledRejection', note);
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });
  return rejections;
}
