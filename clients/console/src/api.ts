/** The page's requests to the service, besides the WebSocket. */

/** What the page must know before anyone has proven an identity. */
export interface Facts {
  readonly version: string;
  readonly auth: 'none' | 'jwt' | 'device' | 'jwt+device';
  /** The demo users for whom the page may act; `null` where it may act for nobody. */
  readonly demo: readonly DemoUser[] | null;
}

export interface DemoUser {
  readonly id: string;
  readonly username: string;
}

/** The service's figures; `src/http/console/stats.rs` declares the same. */
export interface Stats {
  /** The service's clock, in ms since 1970. */
  readonly now_ms: number;
  readonly connections_open: number;
  readonly users_connected: number;
  readonly events_received_total: number;
  readonly events_delivered_total: number;
  /** Of the events delivered in the last second; `null` when there were none. */
  readonly delivery_latency_p99_ms: number | null;
}

/** A server that shares a bus with others; `src/http/console/nodes.rs` declares the same. */
export interface ServerNode {
  readonly id: string;
  readonly name: string;
  readonly version: string;
  readonly role: 'leader' | 'follower' | 'reader';
  /** The term that it leads or follows in. */
  readonly term: number | null;
  readonly connections: number;
  /** Those that it takes from the bus; `null` where it reads the log of all users. */
  readonly shards: number | null;
  readonly lag_ms: number;
  /** How long ago it has said this. */
  readonly seen_ms: number;
}

/** The identity that the page presents: a user's id where no proof is required, else a token. */
export type Identity = { readonly userId: string } | { readonly token: string };

/** An answer that is no success, with the service's message. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Needs no identity. */
export function fetchFacts(base: URL): Promise<Facts> {
  return ask(new URL('console/facts', base));
}

/** Writes a real row for a demo user. Returns the ids of the messages, one for each device. */
export async function sendDemoMessage(
  base: URL,
  message: { from: string; to: string; text: string },
): Promise<string[]> {
  const sent = await ask<{ messages: string[] }>(new URL('console/demo/messages', base), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(message),
  });
  return sent.messages;
}

/** Reads for one identity. Rejects with a `Refusal`, or as `fetch` does. */
export class Reader {
  constructor(
    private readonly base: URL,
    private readonly identity: Identity,
  ) {}

  stats(): Promise<Stats> {
    return this.read('console/stats', {});
  }

  /** The nodes of the last minute; none where the servers have no bus. */
  async nodes(): Promise<readonly ServerNode[]> {
    const { nodes } = await this.read<{ nodes: readonly ServerNode[] }>('console/nodes', {});
    return nodes;
  }

  /** The times at which the rows of these events were created, by id. `since` is a cursor from before them. */
  async times(since: string, ids: readonly number[]): Promise<ReadonlyMap<number, number>> {
    const found = await this.read<{ times_ms: Record<string, number> }>('console/times', {
      since,
      ids: ids.join(),
    });
    return new Map(Object.entries(found.times_ms).map(([id, ms]) => [Number(id), ms]));
  }

  private read<T>(path: string, query: Record<string, string>): Promise<T> {
    const { identity } = this;
    const url = new URL(path, this.base);
    if ('userId' in identity) query = { user_id: identity.userId, ...query };
    url.search = new URLSearchParams(query).toString();
    return ask(url, 'token' in identity ? { headers: { authorization: `Bearer ${identity.token}` } } : {});
  }
}

async function ask<T>(url: URL, request: RequestInit = {}): Promise<T> {
  const answer = await fetch(url, { cache: 'no-store', ...request });
  const body = (await answer.json().catch(() => null)) as unknown;
  if (answer.ok) return body as T;
  const { error } = (body ?? {}) as { error?: { code?: string; message?: string } };
  throw new Refusal(answer.status, error?.code ?? 'no_code', error?.message ?? 'The answer says no more.');
}
