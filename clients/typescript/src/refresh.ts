/** A token that is replaced while the connection that it has opened goes on. */

import { REFRESH_BEFORE_MS, REFRESH_SOONEST_MS } from './bounds.js';
import type { Prover } from './proof.js';
import { type Timer, later } from './timer.js';

export interface Refresh {
  /** Replaces the token when it is due. */
  start(): void;
  /** Replaces it no more: the connection is over. */
  stop(): void;
}

/** `send` is given each new token; `fail` what was thrown for it. The token before stands then. */
export function refreshOf(prover: Prover, send: (token: string) => void, fail: (error: unknown) => void): Refresh {
  let timer: Timer;
  /** Counts connections. */
  let turn = 0;

  function start(): void {
    clearTimeout(timer);
    const leftMs = prover.remainingMs();
    // One that has expired by this machine's clock: the server's counts, and it will say so.
    if (!(leftMs > 0)) return;
    const inMs = leftMs - Math.min(REFRESH_BEFORE_MS, leftMs / 4);
    timer = later(Math.max(inMs, REFRESH_SOONEST_MS), renew);
  }

  async function renew(): Promise<void> {
    const mine = turn;
    let token;
    try {
      token = await prover.renew();
    } catch (error) {
      if (mine === turn) fail(error);
    }
    if (mine !== turn) return;
    if (token) send(token);
    start();
  }

  return {
    start,
    stop() {
      turn++;
      clearTimeout(timer);
    },
  };
}
