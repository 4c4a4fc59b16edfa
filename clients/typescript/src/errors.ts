/** The errors that the library reports, in `error` handlers, in a closed state, and as rejections. */

/**
 * What went wrong.
 *
 * - `frame`: a frame that is not JSON or not what docs/protocol.md says; the stream goes on.
 * - `server`: the server answered `{"type":"error"}`; `code` has its code.
 * - `handler`: a handler threw, and `cause` has what; or it has not ended in `handlerTimeoutMs`.
 * - `load`: the `load` of `sync()` threw, and `cause` has what.
 * - `store`: the store could not be read or written; `cause` has why. The client goes on with memory.
 * - `proof`: `getToken` or `signDevice` failed, or gave what cannot be sent; `cause` has why.
 * - `socket`: the platform made no WebSocket, as in a page of https for an address of http, and `cause` has why; or none
 *   was accepted in three tries.
 * - `http`: a read of state was refused; `status`, `code` and `retryAfterMs` say how.
 * - `unsupported`: here there is no WebSocket, or no page to which a relative `url` belongs; the message says what to give.
 * - `closed`: the client is closed for good, and a `for await` loop has ended by it; `code` has the reason.
 */
export type ErrorKind =
  | 'frame'
  | 'server'
  | 'handler'
  | 'load'
  | 'store'
  | 'proof'
  | 'socket'
  | 'http'
  | 'unsupported'
  | 'closed';

/** What an error may say besides its kind. */
export interface ErrorDetails {
  readonly cause?: unknown;
  /** The server's word for it, as `token_expired` or `rate_limit`; of kind `closed`, the reason. */
  readonly code?: string | undefined;
  /** The HTTP status of a refused read of state. */
  readonly status?: number;
  /** When the server wants to be asked again, in ms. */
  readonly retryAfterMs?: number | undefined;
}

/** Any error of this library. */
export class RealtimeError extends Error implements ErrorDetails {
  /** What went wrong. */
  declare readonly kind: ErrorKind;
  declare readonly code?: string | undefined;
  declare readonly status?: number;
  declare readonly retryAfterMs?: number | undefined;

  constructor(kind: ErrorKind, message: string, details?: ErrorDetails) {
    super(message);
    Object.assign(this, details, { kind, name: 'RealtimeError' });
  }
}

/** What `getToken` throws when nobody is signed in: the client closes with the reason `signed_out`, without an error. */
export class SignedOut extends Error {
  override name = 'SignedOut';
}

/** The error of something that failed with `cause`. A proof in its text is left out. */
export const failure = (kind: ErrorKind, cause: unknown, code?: string): RealtimeError =>
  new RealtimeError(kind, masked(`${kind} failed: ${textOf(cause)}`), { cause, code });

/** What a socket that cannot be made throws: browsers write the subprotocol into it, which is the proof. */
export const socketFailure = (cause: unknown): RealtimeError =>
  failure('socket', new Error(masked(textOf(cause))));

const masked = (text: string): string => text.replace(/(hushnet\.(token|device)\.)[^\s'"]+/g, '$1…');

/** Anything may be thrown, also what has no text. */
function textOf(cause: unknown): string {
  try {
    return String(cause);
  } catch {
    return typeof cause;
  }
}
