import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { RealtimeClient } from '../../src/index.js';
import { USER, bench } from '../support.js';

afterEach(() => void vi.unstubAllGlobals());

describe('the option url', () => {
  it.each([
    ['https://h', 'wss://h/ws'],
    ['http://h:8080/', 'ws://h:8080/ws'],
    ['WSS://h/ws/', 'wss://h/ws'],
    ['wss://h/before/ws?tenant=blue', 'wss://h/before/ws', '&tenant=blue'],
    ['https://h?a=%2B&since=9-9&user_id=eve&since_when=1#part', 'wss://h/ws', '&a=%2B&since_when=1'],
    ['http://[::1]:8080/ws', 'ws://[::1]:8080/ws'],
  ])('%s becomes %s', async (url, expected, query = '') => {
    const { server, client } = bench({ url });
    await client.connect({ since: '1-0' });
    expect(server.connection.url).toBe(`${expected}?user_id=${USER}&since=1-0${query}`);
    await client.close();
  });

  it('has its query in reads of state, too', async () => {
    const asked: string[] = [];
    const fetch = async (address: unknown) => (asked.push(`${address}`), new Response('[]'));
    const { client } = bench({ url: 'ws://h/ws?tenant=blue', fetch: fetch as typeof globalThis.fetch });
    await client.fetchPendingMessages('device');
    await client.fetchPendingSessions('device');
    expect(asked).toEqual([
      'http://h/messages/pending/device?tenant=blue',
      'http://h/sessions/pending?device_id=device&tenant=blue',
    ]);
  });

  it.each(['ftp://h', 'http://', 'ws:h:x', 'https://[h'])('%s is a TypeError', (url) => {
    expect(() => bench({ url })).toThrow(TypeError);
  });

  it.each(['https://bob:secret@h', '//bob:secret@h', 'https://secret@h', 'https://bob:secret@[h'])(
    '%s is refused, and not shown',
    (url) => {
      let error: unknown;
      try {
        bench({ url });
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(TypeError);
      expect(`${(error as Error).message}`).toMatch(/user and password.*getToken/);
      expect(JSON.stringify({ ...(error as object), text: `${error}` })).not.toContain('secret');
    },
  );

  it('may be relative to the page', async () => {
    vi.stubGlobal('location', { href: 'https://page/chat?room=1' });
    const { server, client } = bench({ url: '/realtime?tenant=blue' });
    // The page moves on; the server stays where it was.
    vi.stubGlobal('location', { href: 'https://page/elsewhere/' });
    await client.connect();
    expect(server.connection.url).toBe(`wss://page/realtime/ws?user_id=${USER}&tenant=blue`);
    await client.close();
    vi.stubGlobal('location', { href: 'file:///index.html' });
    expect(() => bench({ url: '/realtime' })).toThrow(TypeError);
  });
});

describe('the option kinds', () => {
  it.each(['a', 'é', '€', '\u{1f600}', '\ud800'])('is counted in bytes of UTF-8: %s', (character) => {
    const bytes = new TextEncoder().encode(character).length;
    const full = character.repeat(Math.floor(32 / bytes));
    expect(() => bench({ kinds: [full] })).not.toThrow();
    expect(() => bench({ kinds: [full + character] })).toThrow(TypeError);
  });

  it('is checked where there is no TextEncoder', () => {
    vi.stubGlobal('TextEncoder', undefined);
    expect(() => bench({ kinds: ['message'] })).not.toThrow();
  });
});

describe('on a server that renders a page', () => {
  beforeEach(() => {
    vi.stubGlobal('WebSocket', undefined);
    vi.stubGlobal('location', undefined);
  });

  it.each([
    ['without a WebSocket', { url: 'https://h' }, /package ws/],
    ['without a page', { url: '/realtime', WebSocket: bench().server.WebSocket }, /relative/],
    ['without both', { url: '/realtime' }, /relative/],
  ])('%s a client is made, and connect() says what is missing', async (_, options, said) => {
    const client = new RealtimeClient({ userId: USER, ...options });
    const errors: string[] = [];
    client.on('error', ({ kind, message }) => void errors.push(`${kind} ${message}`));
    await client.connect();
    expect(client.state).toMatchObject({ status: 'closed', reason: 'unsupported', error: { kind: 'unsupported' } });
    expect(errors).toEqual([expect.stringMatching(said)]);
    await client.close();
    // Where there is one later, as in tests, the same client connects.
    const { server } = bench();
    vi.stubGlobal('WebSocket', server.WebSocket);
    vi.stubGlobal('location', { href: 'https://page/' });
    await client.connect();
    expect(client.state.status).toBe('live');
    await client.close();
  });

  it('a read of state rejects', async () => {
    const client = new RealtimeClient({ url: '/realtime', userId: USER });
    await expect(client.fetchDevices()).rejects.toMatchObject({ kind: 'unsupported' });
  });
});
