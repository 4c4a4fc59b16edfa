/** The errors that the library reports, in `error` handlers, in a closed state, and as rejections. */

/**
 * What went wrong.
 *
 * - `frame`: a frame that is not JSON or not what docs/protocol.md says; the stream goes on.
 * - `server`: the server answered `{"type":"error"}`; `code` has its code.
 * - `handler`: a handler threw; `cause` has what.
 * - `store`: the store could not be read or written; `cause` has why.
 * - `proof`: `getToken` or `signDevice` failed, or gave what cannot be sent; `cause` has why.
 * - `http`: a read of state was refused; `status`, `code` and `retryAfterMs` say how.
 * - `closed`: a `for await` loop ended because the client was closed for good; `code` has the reason.
 */
export type ErrorKind = 'frame' | 'server' | 'handler' | 'store' | 'proof' | 'http' | 'closed';

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

/** The error of something that failed with `cause`. */
export const failure = (kind: ErrorKind, cause: unknown): RealtimeError =>
  new RealtimeError(kind, `${kind} failed: ${cause}`, { cause });
