/** The addresses that follow from the option `url`. */

export interface Endpoints {
  /** The WebSocket's, from `since` on. */
  socket(userId: string | undefined, since: string | null): string;
  /** Of a path that begins with a slash. */
  http(path: string): string;
}

/** Throws a `TypeError` for a useless `url`. */
export function endpointsOf(url: string | URL): Endpoints {
  const base = new URL(url, (globalThis as { location?: Location }).location?.href);
  const [, scheme] = /^(?:ws|http)(s?:)$/.exec(base.protocol) ?? [];
  if (!scheme) throw new TypeError('url: needs http, https, ws or wss');
  const rest = `${scheme}//${base.host}${base.pathname.replace(/\/(ws\/?)?$/, '')}`;
  return {
    socket: (userId, since) =>
      `ws${rest}/ws?${new URLSearchParams({
        ...(userId && { user_id: userId }),
        ...(since && { since }),
      })}`,
    http: (path) => `http${rest}${path}`,
  };
}
