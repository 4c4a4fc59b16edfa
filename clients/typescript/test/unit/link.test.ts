import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { bench, settle } from '../support.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const message = { type: 'message', chat_id: null } as const;

describe('a dead link', () => {
  it('is asked after a missing heartbeat, and left when nothing comes', async () => {
    const { server, client } = bench();
    await client.connect();
    await vi.advanceTimersByTimeAsync(37_000);
    expect(server.connection.received).toEqual([]);
    server.isSilent = true;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(server.connection.received).toEqual([{ type: 'ping' }]);
    await vi.advanceTimersByTimeAsync(9_000);
    expect(client.state.status).toBe('live');
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state).toMatchObject({ status: 'reconnecting', reason: 'silent' });
    await client.close();
  });

  it('is not asked while heartbeats come, and stays when the ping is answered', async () => {
    const { server, client } = bench();
    await client.connect();
    for (let i = 0; i < 10; i++) {
      await vi.advanceTimersByTimeAsync(25_000);
      server.heartbeat();
    }
    expect(server.connection.received).toEqual([]);
    await vi.advanceTimersByTimeAsync(300_000);
    expect(server.connects).toBe(1);
    expect(server.connection.received.length).toBeGreaterThan(3);
    await client.close();
  });

  it('is left when no hello comes', async () => {
    const { server, client } = bench();
    vi.spyOn(server, 'admit').mockImplementation((connection) => connection.open());
    void client.connect();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(client.state).toMatchObject({ status: 'reconnecting', reason: 'silent' });
    await client.close();
  });
});

describe('the network', () => {
  let page: EventTarget;
  beforeEach(() => {
    page = new EventTarget();
    vi.stubGlobal('addEventListener', page.addEventListener.bind(page));
  });
  afterEach(() => void vi.unstubAllGlobals());

  it('online does not wait any longer', async () => {
    const { server, client } = bench();
    for (let i = 0; i < 5; i++) server.refuse(1006);
    void client.connect();
    await vi.advanceTimersByTimeAsync(16_000);
    expect(client.state).toMatchObject({ status: 'reconnecting', attempt: 5 });
    page.dispatchEvent(new Event('online'));
    await settle();
    expect(client.state.status).toBe('live');
    await client.close();
  });

  it('offline asks the link at once', async () => {
    const { server, client } = bench();
    await client.connect();
    server.isSilent = true;
    page.dispatchEvent(new Event('offline'));
    await vi.advanceTimersByTimeAsync(4_000);
    expect(client.state).toMatchObject({ status: 'reconnecting', reason: 'silent' });
    await client.close();
  });

  it.each([3_600_000, -3_600_000])('asks the link when the clock has jumped by %i ms', async (ms) => {
    const { server, client } = bench();
    await client.connect();
    vi.setSystemTime(Date.now() + ms);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(server.connection.received).toEqual([{ type: 'ping' }]);
    server.heartbeat();
    await vi.advanceTimersByTimeAsync(30_000);
    expect([server.connects, client.state.status]).toEqual([1, 'live']);
    await client.close();
  });

  it('is come back to at the time of goaway, whatever the clock is set to', async () => {
    const { server, client } = bench();
    await client.connect();
    server.goaway(20_000);
    await settle();
    vi.setSystemTime(Date.now() - 86_400_000);
    server.close(1012);
    await vi.advanceTimersByTimeAsync(19_900);
    expect(server.connects).toBe(1);
    await vi.advanceTimersByTimeAsync(200);
    expect(server.connects).toBe(2);
    await client.close();
  });

  it('is noticed to be dead, whatever the clock is set to', async () => {
    const { server, client } = bench();
    await client.connect();
    server.isSilent = true;
    vi.setSystemTime(Date.now() - 86_400_000);
    await vi.advanceTimersByTimeAsync(9_000);
    expect(client.state).toMatchObject({ status: 'reconnecting', reason: 'silent' });
    await client.close();
  });

  it('is let go when the page is left, and comes back at once when the page does', async () => {
    const { server, client, ids } = bench();
    await client.connect();
    page.dispatchEvent(new Event('pageshow'));
    expect(server.connects).toBe(1);
    page.dispatchEvent(new Event('pagehide'));
    await settle();
    expect(client.state).toMatchObject({ status: 'reconnecting', reason: 'paused' });
    expect(server.connections.size).toBe(0);
    server.emit(message);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(server.connects).toBe(1);
    page.dispatchEvent(new Event('pageshow'));
    await settle();
    expect(client.state).toEqual({ status: 'live', resumed: true });
    expect(ids).toEqual([1]);
    await client.close();
  });

  it('that was paused is made again by resume() or reconnect() alone', async () => {
    const { server, client, ids } = bench();
    await client.connect();
    for (const end of [() => client.resume(), () => client.reconnect()]) {
      const { connects } = server;
      page.dispatchEvent(new Event('pagehide'));
      client.pause();
      for (const event of ['pageshow', 'online', 'offline']) page.dispatchEvent(new Event(event));
      client.probe();
      await vi.advanceTimersByTimeAsync(60_000);
      expect(server.connects).toBe(connects);
      expect(client.state).toMatchObject({ status: 'reconnecting', reason: 'paused' });
      server.emit(message);
      end();
      await settle();
      expect(client.state).toEqual({ status: 'live', resumed: true });
    }
    expect(ids).toEqual([1, 2]);
    await client.close();
  });

  it('a page that was left is not connected by resume()', async () => {
    const { server, client } = bench();
    await client.connect();
    client.pause();
    page.dispatchEvent(new Event('pagehide'));
    client.resume();
    await settle();
    expect(server.connections.size).toBe(0);
    page.dispatchEvent(new Event('pageshow'));
    await settle();
    expect(client.state).toEqual({ status: 'live', resumed: true });
    await client.close();
  });

  it('a handler that goes on from elsewhere while the client is paused makes no connection', async () => {
    const { server, client } = bench();
    let goOn: (cursor: string | null) => void;
    client.on('reset', () => new Promise<string | null>((resolve) => (goOn = resolve)));
    await client.connect();
    server.emit(message);
    const older = server.cursor;
    server.emit(message);
    server.reset('truncated');
    await settle();
    client.pause();
    goOn!(older);
    await settle();
    client.probe();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(server.connections.size).toBe(0);
    expect(client.state.status).toBe('reconnecting');
    client.resume();
    await settle();
    expect(client.state.status).toBe('live');
    await client.close();
  });

  it('reconnect() waits for nothing', async () => {
    const { server, client } = bench();
    for (let i = 0; i < 5; i++) server.refuse(1006);
    void client.connect();
    await vi.advanceTimersByTimeAsync(16_000);
    client.reconnect();
    await settle();
    expect(client.state.status).toBe('live');
    client.reconnect();
    await settle();
    expect([client.state.status, server.connects, server.connections.size]).toEqual(['live', 7, 1]);
    await client.close();
    client.reconnect();
    await settle();
    expect(client.state.status).toBe('live');
    await client.close();
  });
});
