/** Proves who the client is: to the WebSocket by subprotocols, to the other routes by headers. */

import { PROOF_TIMEOUT_MS } from './bounds.js';
import { SignedOut, failure } from './errors.js';
import { limited } from './timer.js';
import type { ClientOptions } from './types.js';

export interface Prover {
  /** Whether a refusal may be answered with a better proof. */
  readonly isRenewable: boolean;
  /**
   * The subprotocols to connect with. Rejects with `SignedOut`, or with a `RealtimeError` of kind `proof`, whose code is
   * `malformed` if what there is cannot be sent.
   */
  subprotocols(): Promise<string[]>;
  /** The headers to read state with. Rejects likewise. */
  headers(): Promise<Record<string, string>>;
  /** A new token. Rejects likewise. */
  renew(): Promise<string>;
  /** The user whom the token names; `undefined` without one. Rejects likewise. */
  user(): Promise<string | undefined>;
  /** The user whom the newest token names; else the newest key. */
  readonly subject: string | undefined;
  /** Forgets a token that was refused. */
  forget(): void;
  /** How long the token is good, in ms; NaN if there is none or it does not say. */
  remainingMs(): number;
  /** What the server says that remains: its clock counts. */
  extend(remainingMs: number): void;
}

/** Throws a `TypeError` if there is nothing to say who the client is. */
export function proverOf({
  userId,
  getToken,
  signDevice,
  proofTimeoutMs = PROOF_TIMEOUT_MS,
}: ClientOptions): Prover {
  if (!userId && !getToken && !signDevice) {
    throw new TypeError('one of userId, getToken and signDevice is required');
  }
  let token: string | undefined;
  /** Counts what `token` was: an answer that comes later than another is not used. */
  let asks = 0;
  /** By the wall clock, in ms; NaN if the token does not say. */
  let expiresAt = NaN;
  /** In seconds. */
  let signedAt = 0;
  let signer: string | undefined;

  async function asked<T>(ask: () => T | Promise<T>): Promise<T> {
    try {
      return await limited(proofTimeoutMs, async () => ask());
    } catch (cause) {
      throw cause instanceof SignedOut ? cause : failure('proof', cause);
    }
  }

  function forget(): void {
    token = undefined;
    asks++;
  }

  async function renew(): Promise<string> {
    const mine = ++asks;
    const given = await asked(() => getToken!());
    if (given === null) {
      forget();
      throw new SignedOut();
    }
    const [renewed] = sendable([given]) as [string];
    // Not what was asked for before, perhaps for another user.
    if (mine === asks) {
      token = renewed;
      expiresAt = (claimsOf(token).exp ?? NaN) * 1000;
    }
    return renewed;
  }

  const current = async (): Promise<string> => (token && expiresAt > Date.now() ? token : await renew());

  /** What there is to prove with, in the order in which a subprotocol has it. */
  async function prove(): Promise<string[]> {
    if (getToken) return [await current()];
    if (!signDevice) return [];
    // The server accepts each second that a key has signed once, and seconds that are a little off.
    // Where the clock was put back it begins anew.
    const now = Math.floor(Date.now() / 1000);
    signedAt = signedAt > now + 30 ? now : Math.max(signedAt + 1, now);
    const { key, signature, timestamp } = await asked(() => signDevice(signedAt));
    const proof = sendable([key, signature, `${timestamp}`]);
    signer = key;
    return proof;
  }

  return {
    isRenewable: !!(getToken ?? signDevice),
    async subprotocols() {
      const proof = (await prove()).map(getToken ? String : forUrl).join('.');
      return ['hushnet.v1', ...(proof && [`hushnet.${getToken ? 'token' : 'device'}.${proof}`])];
    },
    async headers(): Promise<Record<string, string>> {
      const [first, signature, timestamp] = await prove();
      if (!first) return {};
      if (!timestamp) return { authorization: `Bearer ${first}` };
      return { 'x-identity-key': first, 'x-signature': signature!, 'x-timestamp': timestamp };
    },
    renew,
    user: async () => (getToken ? claimsOf(await current()).sub : undefined),
    get subject() {
      return token ? claimsOf(token).sub : signer;
    },
    forget,
    remainingMs: () => expiresAt - Date.now(),
    extend(remainingMs) {
      expiresAt = Date.now() + remainingMs;
    },
  };
}

/** Parts of a subprotocol, which takes letters, digits and a few signs; of base64 also those that `forUrl` takes out. */
function sendable(parts: unknown[]): string[] {
  const allowed = parts[1] === undefined ? /^[\w.+~-]+$/ : /^[\w.+/=~-]+$/;
  if (parts.every((part) => typeof part === 'string' && allowed.test(part))) return parts as string[];
  throw failure('proof', 'what was given is no token and no signature', 'malformed');
}

/** Base64 as it may stand in a subprotocol. */
const forUrl = (base64: string): string =>
  base64.replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '');

/** What a token says; nothing if it is not to be read. */
export function claimsOf(token: string): { exp?: number; sub?: string } {
  try {
    const claims = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/');
    return Object(JSON.parse(atob(claims))) as object;
  } catch {
    return {};
  }
}
