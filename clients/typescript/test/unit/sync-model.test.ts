/** sync(): at the end the state is exactly what was committed, whatever happened. Operations begin when it is live. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { MockRealtimeServer } from '../../src/testing.js';
import { bench, settle } from '../support.js';

const message = { type: 'message', chat_id: null } as const;
beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

it('the state is what was committed', async () => {
  const bad: string[] = [];
  for (let seed = 1; seed <= Number(process.env.SEEDS ?? 150); seed++) {
    let s = seed * 7919;
    const rand = () => {
      s = (s + 0x6d2b79f5) | 0;
      let t = Math.imul(s ^ (s >>> 15), 1 | s);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    const target = new EventTarget();
    vi.stubGlobal('addEventListener', target.addEventListener.bind(target));
    const server = new MockRealtimeServer();
    let count = 0,
      calm = false,
      hidden = false;
    const emit = () => {
      server.emit(message);
      count++;
    };
    const { client } = bench({ random: rand, queueFramesMax: rand() < 0.3 ? 3 : 10_000, logger() {} }, server);
    const begin = () =>
      client.sync<number[]>({
        load: async () => {
          if (!calm && rand() < 0.2) throw new Error('fetch');
          const [state, cursor] = [Array.from({ length: count }, (_, i) => i + 1), server.cursor];
          await new Promise((r) => setTimeout(r, calm ? 1 : rand() * 400));
          if (!calm && rand() < 0.2) throw new Error('body');
          return { state, cursor };
        },
        apply: (ids, { id }) => {
          if (!calm && rand() < 0.1) throw new Error('apply');
          return [...ids, id!];
        },
      });
    let synced = begin();
    for (let i = 0; i < 200 && client.state.status !== 'live'; i++) await vi.advanceTimersByTimeAsync(1_000);
    for (let step = 0; step < 80; step++) {
      const r = Math.floor(rand() * 12);
      if (r < 5) emit();
      else if (r === 5) server.close(1006);
      else if (r === 6) server.reset('truncated');
      else if (r === 7 && rand() < 0.3) server.expire();
      else if (r === 8 && server.connections.size) client.reconnect();
      else if (r === 9) {
        target.dispatchEvent(new Event(hidden ? 'pageshow' : 'pagehide'));
        hidden = !hidden;
      } else if (r === 10) target.dispatchEvent(new Event('online'));
      else if (r === 11 && rand() < 0.2) {
        void client.close();
        synced = begin();
        for (let i = 0; i < 400 && client.state.status !== 'live'; i++) await vi.advanceTimersByTimeAsync(500);
        hidden = false;
      }
      if (rand() < 0.6) await vi.advanceTimersByTimeAsync(rand() * 300);
      else await settle();
    }
    calm = true;
    if (hidden) target.dispatchEvent(new Event('pageshow'));
    emit();
    for (let i = 0; i < 100; i++) await vi.advanceTimersByTimeAsync(1_000);
    const state = synced.getSnapshot() ?? [];
    const want = Array.from({ length: count }, (_, i) => i + 1);
    if (JSON.stringify(state) !== JSON.stringify(want))
      bad.push(
        `seed ${seed}: of ${count} missing ${want.filter((i) => !state.includes(i))}, twice ${state.filter((x, i) => state.indexOf(x) !== i)} ${JSON.stringify(client.state)}`,
      );
    void client.close();
    await vi.advanceTimersByTimeAsync(60_000);
    if (vi.getTimerCount()) bad.push(`seed ${seed}: ${vi.getTimerCount()} timers`);
    vi.clearAllTimers();
  }
  expect(bad.slice(0, 8)).toEqual([]);
});
