/** What a close code means to a client; the table of close codes in docs/protocol.md, and the codes of the platform. */

import { PROOF_TRIES_MAX } from './bounds.js';
import type { ClosedReason } from './types.js';

/** What to do after a close: come back, come back with a new proof, or stay away. */
export type Verdict = 'return' | 'prove' | ClosedReason;

/**
 * After these the server would refuse again for the same mistake. All others, 1006 of a lost network
 * and codes that this version does not know among them, are worth another try: the backoff bounds it.
 */
const FINAL: readonly number[] = [1000, 1002, 1003, 1007, 1009, 1010];

/** What to do after a close for good. */
export const ADVICE: Record<string, string> = {
  unauthenticated: 'Give a proof that the server accepts, then connect() again',
  revoked: 'The device or the user was deleted: sign in anew',
  refused: 'The client is at fault: the same would be refused again',
};

/** What may be wrong where no socket opens. */
export const REFUSED =
  "Is the service there, is the page's origin among its --allowed-origins, and is userId one of its users' ids?";

/**
 * Judges a close code. `refusals` is how many 4001 there were in a row, this one included; `renewable`
 * says whether there is a `getToken` or `signDevice` to ask for a better proof.
 */
export function judge(code: number, refusals: number, renewable: boolean): Verdict {
  if (code === 4004 && renewable) return 'prove';
  if (code === 4001) return renewable && refusals < PROOF_TRIES_MAX ? 'prove' : 'unauthenticated';
  if (code === 4003) return 'revoked';
  return FINAL.includes(code) ? 'refused' : 'return';
}
