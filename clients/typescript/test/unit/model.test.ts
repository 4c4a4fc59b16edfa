/** Seeded random sequences of all that can happen, against a model of what must have been handed on. SEEDS and FROM choose others. */
import { describe, expect, it, vi } from 'vitest';
import { type CursorStore, type Place, RealtimeClient } from '../../src/index.js';
import { USER, settle, underFakeTimers } from '../support.js';
import { Conn, Server, rng } from './model-server.js';

const SEEDS = Number(process.env.SEEDS ?? 60);
const FROM = Number(process.env.FROM ?? 1);
const rejections = underFakeTimers();

interface Mode {
  failSaves: boolean;
  reentrant: boolean;
  page: boolean;
}

async function play(seed: number, mode: Mode) {
  const rand = rng(seed);
  const chance = (p: number) => rand() < p;
  const server = new Server(rand);
  let skew = 0;
  const wall = Date.now;
  vi.spyOn(Date, 'now').mockImplementation(() => wall() + skew);
  const trace: string[] = [];
  const problems: string[] = [];
  const target = new EventTarget();
  vi.stubGlobal('addEventListener', target.addEventListener.bind(target));
  // The model.
  const ended = new Set<number>(); // ids all of whose handlers have ended, or that a reset has covered
  const begun = new Map<number, number>(); // how often it was handed on anew (attempt 1)
  const excused = new Map<number, number>(); // may be handed on again so often
  let running: number | undefined;
  let runs: AbortSignal | undefined;
  let covered = 0;
  // The store: as IndexedDB.
  let record: Place | null = null;
  let added: number[] = [];
  let trouble = false;
  let lossAllowed = false;
  let isDead = false; // after a crash
  const look = (): Place | null => record && { ...record, ids: [...record.ids, ...added] };
  const check = () => {
    const place = look();
    if (!place || place.cursor === null) return;
    const at = Number(place.cursor.slice(1));
    for (let p = covered + 1; p <= at; p++)
      if (p > firstAt && !ended.has(server.log[p - 1]!))
        problems.push(`stored ${place.cursor}, but ${p} (${server.log[p - 1]}) has not ended`);
    for (const id of [...place.ids, ...place.idsBefore])
      if (!ended.has(id)) problems.push(`stored id ${id} has not ended`);
  };
  let firstAt = 0;
  const storeOf = (gen: { dead: boolean }): CursorStore => ({
    async load() {
      if (trouble && chance(0.3)) await new Promise((r) => setTimeout(r, rand() * 3_000));
      return look();
    },
    async save(change) {
      const copy = {
        cursor: change.cursor,
        ids: [...change.ids],
        idsBefore: [...change.idsBefore],
        added: change.added && [...change.added],
      };
      if (trouble && chance(0.4))
        await new Promise((r) => setTimeout(r, rand() * (chance(0.1) && mode.failSaves ? 9_000 : 800)));
      if (gen.dead) return new Promise(() => {});
      trace.push(`    save ${copy.cursor} ${copy.ids.length} ${copy.added?.length}`);
      if (mode.failSaves && trouble && chance(0.3)) throw new Error('quota');
      if (copy.added) added.push(...copy.added);
      else {
        record = { cursor: copy.cursor, ids: copy.ids, idsBefore: copy.idsBefore };
        added = [];
      }
      check();
    },
    clear() {},
  });
  let gen = { dead: false };
  let client!: RealtimeClient;
  let calm = false;
  let wedged = false;
  const make = () => {
    const mine = (gen = { dead: false });
    const WS = class extends Conn {
      constructor(url: string) {
        super(server, url);
        if (mine.dead) this.readyState = 3;
      }
    };
    client = new RealtimeClient({
      url: 'ws://x',
      userId: USER,
      WebSocket: WS as never,
      random: rand,
      cursorStore: storeOf(mine),
      locks: null,
      queueFramesMax: chance(0.3) ? 3 : 10_000,
      handlerTimeoutMs: 3_600_000,
      logger() {},
    });
    client.on('error', () => {
      if (chance(0.3)) throw new Error('listener');
    });
    client.on('message', async ({ id: i }, { signal, attempt }) => {
      if (mine.dead) return new Promise(() => {});
      const id = i!;
      if (attempt === 1) {
        const times = (begun.get(id) ?? 0) + 1;
        begun.set(id, times);
        if (times > 1 + (excused.get(id) ?? 0))
          problems.push(`${id} (pos ${server.log.indexOf(id) + 1}) handed on again`);
        if (ended.has(id) && server.log.indexOf(id) + 1 > covered && !excused.get(id))
          problems.push(`${id} handed on after its end`);
      }
      trace.push(`    begin ${id} pos ${server.log.indexOf(id) + 1} attempt ${attempt}`);
      // One that goes on for longer than close() waits is the application's.
      if (running !== undefined && running !== id && !runs!.aborted) problems.push(`${id} while ${running} runs`);
      running = last = id;
      runs = signal;
      const what = calm ? 0 : rand();
      try {
        if (what > 0.9) throw new Error('fails');
        if (what > 0.7) await new Promise((r) => setTimeout(r, rand() * (chance(0.1) ? 8_000 : 60)));
        else if (what > 0.65)
          await new Promise<void>((resolve, reject) => {
            const t = setTimeout(resolve, 2_000);
            signal.addEventListener('abort', () => {
              clearTimeout(t);
              chance(0.5) ? resolve() : reject(new Error('aborted'));
            });
          });
        if (what > 0.6 && chance(0.2)) throw new Error('fails late');
      } finally {
        if (running === id) running = undefined;
      }
      trace.push(`    end ${id} ${signal.aborted}`);
      if (!signal.aborted) ended.add(id);
    });
    client.on('reset', async (_, { signal }) => {
      if (!calm && chance(0.3)) throw new Error('refetch');
      if (chance(0.5)) await new Promise((r) => setTimeout(r, rand() * 300));
      if (signal.aborted || mine.dead) return;
      const at = server.log.length;
      trace.push(`    reset handled at ${at}`);
      covered = Math.max(covered, at);
      for (const id of server.log) ended.add(id);
      if (chance(0.5)) return `c${at}`;
      // From the reset's own cursor: what is covered comes again, or for the first time.
      for (const id of server.log) excused.set(id, (excused.get(id) ?? 0) + 1);
      return undefined;
    });
    client.on('state', (state) => {
      if (mine.dead) return;
      trace.push(
        `  state ${state.status} ${'reason' in state ? state.reason : ''}${state.blocked ? ' blocked' : ''}`,
      );
      if (state.status === 'closed' && state.reason !== 'closed') problems.push(`closed: ${JSON.stringify(state)}`);
      if (state.status === 'closed' && state.blocked) problems.push('closed and blocked');
      if (client.state.status === 'live' && server.conns.size === 0 && server.all.every((c) => c.readyState === 3))
        problems.push('live without a socket');
      if (mode.reentrant && !calm && chance(0.03) && state.status !== 'closed') {
        trace.push('  (listener closes)');
        close();
      } else if (
        mode.reentrant &&
        !calm &&
        chance(0.03) &&
        state.status !== 'closed' &&
        !/reconnect/.test(JSON.stringify(state))
      )
        client.reconnect();
      if (chance(0.02)) throw new Error('listener of state');
    });
  };
  let closings = 0;
  let last: number | undefined;
  function close() {
    // The event that is being handled may come again, also one between two tries.
    for (const [id] of begun) if (!ended.has(id) || id === last) excused.set(id, (excused.get(id) ?? 0) + 1);
    closings++;
    const at = performance.now();
    void client.close().then(() => {
      closings--;
      if (performance.now() - at > 5_010) problems.push(`close() took ${performance.now() - at}`);
    });
  }
  make();
  // The first place, so that nothing may be lost from here on.
  void client.connect();
  for (let i = 0; i < 200 && !look(); i++) await vi.advanceTimersByTimeAsync(500);
  if (!look()) return problems;
  firstAt = Number(look()!.cursor!.slice(1));
  let hidden = false;
  for (let step = 0; step < 150; step++) {
    const r = Math.floor(rand() * 24);
    trace.push(`${step} op ${r} log ${server.log.length} kept ${look()?.cursor}+${look()?.ids.length}`);
    const conn = [...server.conns].at(-1);
    if (r < 7) for (let n = 1 + Math.floor(rand() * 5); n--;) server.emit();
    else if (r === 7) conn?.sayCursor();
    else if (r === 8) conn?.end([1006, 1012, 4008, 1011][Math.floor(rand() * 4)]!);
    else if (r === 9 && conn && !conn.hasGoaway) {
      conn.hasGoaway = true;
      conn.frame({ type: 'goaway', retry_after_ms: Math.floor(rand() * 3_000) });
    } else if (r === 10 && conn)
      conn.frame({ type: 'reset', reason: 'truncated', cursor: ((conn.sent = server.log.length), conn.next()) });
    else if (r === 11 && chance(0.3)) server.oldest = server.log.length - Math.floor(rand() * 3);
    else if (r === 12) {
      close();
    } else if (r === 13 || r === 14) void client.connect();
    else if (r === 15) client.reconnect();
    else if (r === 16) target.dispatchEvent(new Event('online'));
    else if (r === 17 && mode.page) {
      target.dispatchEvent(new Event(hidden ? 'pageshow' : 'pagehide'));
      hidden = !hidden;
    } else if (r === 18) trouble = !trouble;
    else if (r === 19) skew += (rand() - 0.5) * 1e8;
    else if (r === 20 && chance(0.3)) {
      // A crash: what has ended since the last save comes again.
      gen.dead = true;
      running = undefined;
      for (const c of [...server.conns]) {
        c.onmessage = c.onclose = null;
        c.readyState = 3;
        server.conns.delete(c);
      }
      const place = look()!;
      const at = Number(place.cursor!.slice(1));
      const known = new Set([...place.ids, ...place.idsBefore]);
      const slice = server.log.filter((id, p) => p + 1 > at && !known.has(id) && ended.has(id) && p + 1 > covered);
      if (slice.length > 200 && !mode.failSaves) problems.push(`slice ${slice.length}`);
      for (const id of server.log) if (begun.has(id)) excused.set(id, (excused.get(id) ?? 0) + 1);
      trace.push(`  crash at ${place.cursor}`);
      make();
      void client.connect();
      hidden = false;
    } else if (r > 20) await vi.advanceTimersByTimeAsync(rand() * (chance(0.2) ? 20_000 : 300));
    if (chance(0.5)) await vi.advanceTimersByTimeAsync(rand() * 20);
    else if (chance(0.5)) await settle();
    if (problems.length) break;
  }
  // All is well from here on: everything has to be handed on.
  calm = true;
  trouble = false;
  if (hidden) target.dispatchEvent(new Event('pageshow'));
  await vi.advanceTimersByTimeAsync(10_000);
  void client.connect();
  server.emit();
  for (let i = 0; i < 100; i++) await vi.advanceTimersByTimeAsync(2_000);
  server.log.forEach((id, i) => {
    if (i >= firstAt && !ended.has(id)) problems.push(`lost ${i + 1} (${id})`);
  });
  if (client.state.status !== 'live') problems.push(`at the end ${JSON.stringify(client.state)}`);
  if (client.state.blocked) problems.push('blocked at the end');
  const kept = look();
  close();
  await vi.advanceTimersByTimeAsync(12_000);
  if (closings) problems.push('close() has not settled');
  (void kept, lossAllowed, wedged, isDead);
  for (let i = 0; i < 10; i++) await vi.advanceTimersByTimeAsync(4_000_000);
  const open = [...server.conns].length;
  if (open) problems.push(`${open} connections after close`);
  if (rejections.length) problems.push(`unhandled ${rejections.map(String)}`);
  return problems.length
    ? [`seed ${seed}`, ...problems, ...(process.env.TRACE ? trace.slice(-Number(process.env.TRACE)) : [])]
    : [];
}

describe.each<[string, Mode]>([
  ['calm listeners', { failSaves: false, reentrant: false, page: true }],
  ['saves fail', { failSaves: true, reentrant: false, page: true }],
  ['re-entrant', { failSaves: false, reentrant: true, page: true }],
])('%s', (_, mode) => {
  it('loses nothing, repeats nothing', async () => {
    const bad: string[][] = [];
    for (let seed = FROM; seed < FROM + SEEDS; seed++) {
      const problems = await play(seed, mode);
      vi.clearAllTimers();
      vi.restoreAllMocks();
      if (problems.length) bad.push(problems.slice(0, 700));
    }
    expect(bad.length, JSON.stringify(bad.slice(0, 6), null, 1)).toBe(0);
  });
});
