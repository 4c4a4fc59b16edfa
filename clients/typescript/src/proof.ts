/** Proves who the client is: to the WebSocket by subprotocols, to the other routes by headers. */

import { failure } from './errors.js';
import type { ClientOptions } from './types.js';

export interface Prover {
  /** Whether a refusal may be answered with a better proof. */
  readonly isRenewable: boolean;
  /** The subprotocols to connect with. Rejects with a `RealtimeError` of kind `proof`. */
  subprotocols(): Promise<string[]>;
  /** The headers to read state with. Rejects likewise. */
  headers(): Promise<Record<string, string>>;
  /** A new token. Rejects likewise. */
  renew(): Promise<string>;
  /** Forgets a token that was refused. */
  forget(): void;
  /** How long the token is good, in ms; NaN if there is none or it does not say. */
  remainingMs(): number;
  /** What the server says that remains: its clock counts. */
  extend(remainingMs: number): void;
}

/** Throws a `TypeError` if there is nothing to say who the client is. */
export function proverOf({ userId, getToken, signDevice }: ClientOptions): Prover {
  if (!userId && !getToken && !signDevice) {
    throw new TypeError('one of userId, getToken and signDevice is required');
  }
  let token: string | undefined;
  /** By this machine's clock, in ms; NaN if the token does not say. */
  let expiresAt = NaN;
  /** In seconds. */
  let signedAt = 0;

  async function renew(): Promise<string> {
    token = await asked(() => getToken!());
    expiresAt = expiry(token);
    return token;
  }

  /** What there is to prove with, in the order in which a subprotocol has it. */
  async function prove(): Promise<string[]> {
    if (getToken) return [token && expiresAt > Date.now() ? token : await renew()];
    if (!signDevice) return [];
    // The server accepts each second that a key has signed once, and seconds that are a little off.
    signedAt = Math.max(signedAt + 1, Math.floor(Date.now() / 1000));
    const { key, signature, timestamp } = await asked(() => signDevice(signedAt));
    return [key, signature, `${timestamp}`];
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
    forget() {
      token = undefined;
    },
    remainingMs: () => expiresAt - Date.now(),
    extend(remainingMs) {
      expiresAt = Date.now() + remainingMs;
    },
  };
}

async function asked<T>(ask: () => T | Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (cause) {
    throw failure('proof', cause);
  }
}

/** Base64 as it may stand in a subprotocol. */
const forUrl = (base64: string): string =>
  base64.replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '');

/** A token's `exp` in ms; NaN if it is not to be read. */
export function expiry(token: string): number {
  try {
    const claims = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/');
    return (JSON.parse(atob(claims)) as { exp: number }).exp * 1000;
  } catch {
    return NaN;
  }
}
