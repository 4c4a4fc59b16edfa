/** The addresses that follow from the options `url` and `kinds`. */

import { KIND_BYTES_MAX, KINDS_BYTES_MAX } from './bounds.js';
import { RESERVED } from './frames.js';
import type { ClientOptions } from './types.js';

export interface Endpoints {
  /** The WebSocket's, from `since` on. */
  socket(userId: string | undefined, since: string | null): string;
  /** Of a path that begins with a slash. */
  http(path: string): string;
}

/** Throws a `TypeError` for a useless `url` or useless `kinds`. */
export function endpointsOf({ url, kinds }: ClientOptions): Endpoints {
  const base = new URL(url, (globalThis as { location?: Location }).location?.href);
  const [, scheme] = /^(?:ws|http)(s?:)$/.exec(base.protocol) ?? [];
  if (!scheme) throw new TypeError('url: needs http, https, ws or wss');
  if (kinds && (bytesOf(`${kinds}`) > KINDS_BYTES_MAX || !kinds[0] || kinds.some(isNoKind))) {
    throw new TypeError(`kinds: needs names of 1 to ${KIND_BYTES_MAX} bytes, no frame's, in all ${KINDS_BYTES_MAX}`);
  }
  const rest = `${scheme}//${base.host}${base.pathname.replace(/\/(ws\/?)?$/, '')}`;
  return {
    socket: (userId, since) =>
      `ws${rest}/ws?${new URLSearchParams({
        ...(userId && { user_id: userId }),
        ...(kinds && { kinds: `${kinds}` }),
        ...(since && { since }),
      })}`,
    http: (path) => `http${rest}${path}`,
  };
}

const isNoKind = (name: string): boolean =>
  /,|^$/.test(name) || RESERVED.test(name) || bytesOf(name) > KIND_BYTES_MAX;

const bytesOf = (text: string): number => new TextEncoder().encode(text).length;
