/** Reads state with the cursor as of which it is. */

import { READ_TRIES_MAX, RETRY_AFTER_MAX_MS } from './bounds.js';
import { RealtimeError } from './errors.js';
import type { Prover } from './proof.js';
import type { ReadOptions, StateRead } from './types.js';

/**
 * The rows at `url`. Asked again after `Retry-After` when the server is too busy, and with a new proof
 * when it refuses the present one, `READ_TRIES_MAX` times in all. Rejects with a `RealtimeError` of kind
 * `http`, or with what `fetch` rejects with.
 */
export async function readState<Row>(
  fetch: typeof globalThis.fetch,
  url: string,
  prover: Prover,
  options?: ReadOptions,
): Promise<StateRead<Row>> {
  for (let tries = 1; ; tries++) {
    const answer = await fetch(url, { ...options, headers: await prover.headers() });
    const { headers, status } = answer;
    if (answer.ok) {
      return {
        rows: (await answer.json()) as Row[],
        cursor: headers.get('realtime-cursor'),
        more: headers.get('realtime-more') === 'true',
      };
    }
    const body = (await answer.json().catch(() => ({}))) as { error?: Refusal };
    const { code, message = `status ${status}` } = body.error ?? {};
    // Seconds; the server and the usual proxies give no date.
    const waitMs = Number(headers.get('retry-after')) * 1000 || undefined;
    const isRefused = status === 401 && prover.isRenewable;
    if (tries === READ_TRIES_MAX || !(isRefused || waitMs! <= RETRY_AFTER_MAX_MS)) {
      throw new RealtimeError('http', message, { code, status, retryAfterMs: waitMs });
    }
    if (isRefused) prover.forget();
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

interface Refusal {
  readonly code?: string;
  readonly message?: string;
}
