import { describe, expect, it, vi } from 'vitest';
import { USER, bench, settle, token } from '../support.js';

const message = { type: 'message', chat_id: null } as const;
const PATH = '/messages/pending/d1';

describe('state', () => {
  it('comes with its cursor, and the stream goes on from there', async () => {
    const { server, client, ids } = bench();
    server.emit(message);
    server.answer(PATH, { body: [{ id: 'm1' }], more: true });
    const state = await client.fetchPendingMessages('d1');
    expect(state).toEqual({ rows: [{ id: 'm1' }], cursor: '1-1', more: true });
    server.emit(message);
    await client.connect({ since: state.cursor });
    await settle();
    expect(ids).toEqual([2]);
    await client.close();
  });

  it('has sessions and devices too', async () => {
    const { server, client } = bench();
    server.answer('/sessions/pending', { body: [{ id: 's' }] });
    server.answer(`/users/${USER}/devices`, { body: [{ id: 'd' }] });
    expect((await client.fetchPendingSessions('d1')).rows).toEqual([{ id: 's' }]);
    expect((await client.fetchDevices()).rows).toEqual([{ id: 'd' }]);
  });

  it('has no cursor without a log', async () => {
    const fetch = () => Promise.resolve(new Response('[]'));
    const { client } = bench({ fetch });
    expect(await client.fetchPendingMessages('d1')).toEqual({ rows: [], cursor: null, more: false });
  });

  it('waits for Retry-After', async () => {
    vi.useFakeTimers();
    const answers = [
      new Response('{"error":{"code":"overloaded","message":"full"}}', {
        status: 503,
        headers: { 'retry-after': '3' },
      }),
      new Response('[]'),
    ];
    const fetch = vi.fn(() => Promise.resolve(answers.shift()!));
    const { client } = bench({ fetch });
    const read = client.fetchPendingMessages('d1');
    await vi.advanceTimersByTimeAsync(2_900);
    expect(fetch).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(200);
    expect((await read).rows).toEqual([]);
    vi.useRealTimers();
  });

  it.each([
    [503, '120', 120_000],
    [404, null, undefined],
  ])('%i with Retry-After %s is an error at once', async (status, after, retryAfterMs) => {
    const body = '{"error":{"code":"why","message":"because"}}';
    const headers: Record<string, string> = after ? { 'retry-after': after } : {};
    const fetch = vi.fn(() => Promise.resolve(new Response(body, { status, headers })));
    const { client } = bench({ fetch });
    const error = { kind: 'http', status, code: 'why', message: 'because', retryAfterMs };
    await expect(client.fetchPendingMessages('d1')).rejects.toMatchObject(error);
    expect(fetch).toHaveBeenCalledTimes(1);
  });

  it('brings its proof, and another when that is refused', async () => {
    const tokens = [token(600, 'a'), token(600, 'b')];
    const [first, second] = tokens;
    const seen: unknown[] = [];
    const fetch = (_: unknown, init?: RequestInit) => {
      seen.push((init?.headers as Record<string, string>).authorization);
      return Promise.resolve(seen.length === 1 ? new Response('{}', { status: 401 }) : new Response('[]'));
    };
    const { client } = bench({ fetch: fetch as typeof globalThis.fetch, getToken: () => tokens.shift()! });
    await client.fetchPendingMessages('d1');
    expect(seen).toEqual([`Bearer ${first}`, `Bearer ${second}`]);
  });

  it('is signed by a device', async () => {
    let seen: unknown;
    const fetch = (_: unknown, init?: RequestInit) => {
      seen = init?.headers;
      return Promise.resolve(new Response('[]'));
    };
    const signDevice = () => ({ key: 'k', signature: 's', timestamp: 7 });
    const { client } = bench({ fetch: fetch as typeof globalThis.fetch, signDevice });
    await client.fetchPendingMessages('d1');
    expect(seen).toEqual({ 'x-identity-key': 'k', 'x-signature': 's', 'x-timestamp': '7' });
  });
});
