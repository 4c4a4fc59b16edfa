import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { MockRealtimeServer } from '../../src/testing.js';
import { localStorageStore } from '../../src/index.js';
import { FakeLocks, bench, installLocalStorage, settle } from '../support.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const message = { type: 'message', chat_id: null } as const;

/** A database of so many messages: what is written goes to it and to the stream. */
class Messages {
  readonly server = new MockRealtimeServer();
  loads = 0;
  fails = false;
  count = 0;

  write(): void {
    this.count++;
    this.server.emit(message);
  }

  readonly load = async (): Promise<{ state: number; cursor: string }> => {
    this.loads++;
    await new Promise((resolve) => setTimeout(resolve, 100));
    if (this.fails) throw new Error('offline');
    return { state: this.count, cursor: `1-${this.count}` };
  };
}

const apply = (count: number): number => count + 1;

describe('sync()', () => {
  it('has the state and then each event, without gap or overlap', async () => {
    const all = new Messages();
    const { client } = bench({}, all.server);
    all.write();
    const synced = client.sync({ load: all.load, apply });
    const seen: unknown[] = [];
    synced.subscribe(() => seen.push(synced.getSnapshot()));
    expect(synced.getSnapshot()).toBeUndefined();
    all.write();
    await vi.advanceTimersByTimeAsync(50);
    all.write();
    await vi.advanceTimersByTimeAsync(50);
    all.write();
    await settle();
    all.write();
    await settle();
    expect(seen).toEqual([3, 4, 5]);
    expect(client.state.status).toBe('live');
    await synced.stop();
    expect(client.state).toEqual({ status: 'closed', reason: 'closed' });
  });

  it('tries the load again, at the beginning and after a reset, and shows that', async () => {
    const all = new Messages();
    const { client } = bench({}, all.server);
    all.fails = true;
    const synced = client.sync({ load: all.load, apply });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state).toMatchObject({ blocked: { event: { reason: 'start' }, attempt: 1 } });
    all.fails = false;
    await vi.advanceTimersByTimeAsync(5_000);
    expect([synced.getSnapshot(), all.loads]).toEqual([0, 2]);
    all.fails = true;
    // Nobody sends these.
    all.count = 7;
    all.server.reset('truncated');
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state).toMatchObject({ blocked: { event: { reason: 'truncated' } } });
    expect(synced.getSnapshot()).toBe(0);
    all.fails = false;
    await vi.advanceTimersByTimeAsync(5_000);
    expect(synced.getSnapshot()).toBe(7);
    await synced.stop();
  });

  it('reports a load that fails as `load`, and an `apply` that fails as `handler`', async () => {
    const all = new Messages();
    const { client, errors } = bench({}, all.server);
    all.fails = true;
    let applies = false;
    const synced = client.sync<number>({
      load: all.load,
      apply: (count) => {
        if (!applies) throw new Error('no such row');
        return count + 1;
      },
    });
    await vi.advanceTimersByTimeAsync(1_000);
    all.fails = false;
    await vi.advanceTimersByTimeAsync(5_000);
    all.write();
    await settle();
    applies = true;
    await vi.advanceTimersByTimeAsync(5_000);
    expect(synced.getSnapshot()).toBe(1);
    expect(errors).toMatchObject([
      { kind: 'load', message: 'load failed: Error: offline', cause: { message: 'offline' } },
      { kind: 'handler', cause: { message: 'no such row' } },
    ]);
    await synced.stop();
  });

  it('closes the client with the error of its load where that is wanted', async () => {
    const all = new Messages();
    const { client } = bench({ onHandlerError: ({ kind }) => (kind === 'load' ? 'close' : 'retry') }, all.server);
    all.fails = true;
    client.sync({ load: all.load, apply });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state).toMatchObject({ status: 'closed', reason: 'handler_failed', error: { kind: 'load' } });
  });

  it('of one that is stopped while it loads does nothing more', async () => {
    const all = new Messages();
    const { client } = bench({}, all.server);
    const first = client.sync({ load: all.load, apply });
    await first.stop();
    const second = client.sync({ load: all.load, apply });
    await vi.advanceTimersByTimeAsync(1_000);
    expect([first.getSnapshot(), second.getSnapshot(), all.server.connects]).toEqual([undefined, 0, 1]);
    await second.stop();
  });

  it('is whole in each of two tabs that share a store', async () => {
    const all = new Messages();
    installLocalStorage();
    const locks = new FakeLocks();
    const tabs = [1, 2].map(() => {
      const { client } = bench({ cursorStore: localStorageStore('bob'), locks: locks.tab() }, all.server);
      return client.sync({ load: all.load, apply });
    });
    await vi.advanceTimersByTimeAsync(200);
    all.write();
    await settle();
    expect(tabs.map((tab) => tab.getSnapshot())).toEqual([1, 1]);
    await tabs[0]!.stop();
    all.write();
    await settle();
    expect(tabs[1]!.getSnapshot()).toBe(2);
    await tabs[1]!.stop();
  });

  it('is the only one of a client, and its first', async () => {
    const all = new Messages();
    const { client } = bench({}, all.server);
    const synced = client.sync({ load: all.load, apply });
    expect(() => client.sync({ load: all.load, apply })).toThrow(/only one/);
    await synced.stop();
    await client.connect();
    expect(() => client.sync({ load: all.load, apply })).toThrow(/not connected/);
    await client.close();
    // One that was closed for good is begun anew.
    const before = client.sync({ load: all.load, apply });
    await vi.advanceTimersByTimeAsync(200);
    all.server.close(4003);
    await settle();
    const after = client.sync({ load: all.load, apply });
    await vi.advanceTimersByTimeAsync(200);
    all.write();
    await settle();
    expect([before.getSnapshot(), after.getSnapshot()]).toEqual([0, 1]);
    await after.stop();
  });
});
