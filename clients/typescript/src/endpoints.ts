/** The addresses that follow from the options `url` and `kinds`. */

import { KIND_BYTES_MAX, KINDS_BYTES_MAX } from './bounds.js';
import { RealtimeError } from './errors.js';
import { RESERVED } from './frames.js';
import type { ClientOptions } from './types.js';

export interface Endpoints {
  /** The WebSocket's, from `since` on, for these kinds or for all. */
  socket(userId: string | undefined, since: string | null, kinds?: readonly string[]): string;
  /** Of a path that begins with a slash. */
  http(path: string): string;
}

/**
 * Throws a `TypeError` for a useless `url` or useless `kinds`. A relative `url` belongs to a page; where there is
 * none, as on a server that renders one, the functions throw a `RealtimeError` of kind `unsupported`.
 */
export function endpointsOf({ url, kinds }: ClientOptions): Endpoints {
  if (kinds && (bytesOf(`${kinds}`) > KINDS_BYTES_MAX || !kinds[0] || kinds.some(isNoKind))) {
    throw new TypeError(`kinds: needs names of 1 to ${KIND_BYTES_MAX} bytes, no frame's, in all ${KINDS_BYTES_MAX}`);
  }
  let known = partsOf(url);
  const parts = (): Parts => {
    if ((known ??= partsOf(url))) return known;
    throw new RealtimeError('unsupported', 'url: a relative one needs a page');
  };
  return {
    socket(userId, since, asked) {
      const [rest, query] = parts();
      return `ws${rest}/ws?${new URLSearchParams({
        ...(userId && { user_id: userId }),
        ...(asked && { kinds: `${asked}` }),
        ...(since && { since }),
      })}${query}`;
    },
    http(path) {
      const [rest, query] = parts();
      return `http${rest}${path}${/\?/.test(path) ? query : query.replace('&', '?')}`;
    },
  };
}

/** Between scheme and path's end; and the query's pairs, with `&` before each. */
type Parts = [rest: string, query: string];

/** Undefined for a relative URL where there is no page. */
function partsOf(url: string | URL): Parts | undefined {
  // Before `URL` reads it, whose error would show the password.
  if (/\/\/[^/?#]*@/.test(`${url}`)) {
    throw new TypeError('url: no user and password, which browsers refuse; give getToken or signDevice');
  }
  const page = (globalThis as { location?: Location }).location?.href;
  if (!page && !/^[a-z]+:/i.test(`${url}`)) return;
  // From the text: React Native's `URL` finds a host only after http and https.
  const [, rest, query] = /^(?:ws|http)(s?:\/\/[^/?#]+[^?#]*)([^#]*)/.exec(new URL(url, page).href) ?? [];
  if (!rest) throw new TypeError('url: needs http, https, ws or wss');
  // The server refuses a query that has a name of the client's twice.
  return [rest.replace(/\/(ws\/?)?$/, ''), query!.replace('?', '&').replace(/&(user_id|kinds|since)=[^&]*/g, '')];
}

const isNoKind = (name: string): boolean =>
  /,|^$/.test(name) || RESERVED.test(name) || bytesOf(name) > KIND_BYTES_MAX;

/** In UTF-8. By hand: Jest's jsdom has no `TextEncoder`. */
const bytesOf = (text: string): number =>
  [...text].reduce((bytes, c) => bytes + (c < '\x80' ? 1 : c < '\u0800' ? 2 : c.length + 2), 0);
