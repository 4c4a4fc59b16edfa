/**
 * Tabs of one store under seeded random sequences of all that can happen to them: each of them is given what is after
 * the place that it began at, each event once. SEEDS and FROM choose others.
 */
import { describe, expect, it, vi } from 'vitest';
import { type CursorStore, type Place, RealtimeClient, sharedStore } from '../../src/index.js';
import { Conn, Server, rng } from './model-server.js';
import { Channel, type TabState, inTab, running, thaw, underTabs } from './tab-world.js';
import { FakeLocks, USER, settle, underFakeTimers } from '../support.js';

const SEEDS = Number(process.env.SEEDS ?? 60);
const FROM = Number(process.env.FROM ?? 1);
const rejections = underFakeTimers();
underTabs();

interface Tab extends TabState {
  readonly client: RealtimeClient;
  readonly view: ReturnType<FakeLocks['tab']>;
  readonly sockets: Set<Conn>;
  isPaused: boolean;
  isClosing: boolean;
  /** When it was last anything but a tab that follows and answers. */
  badAt: number;
  /** How many frames may wait in it. */
  readonly queueFramesMax: number;
  /** The place that it began at; nothing before it has begun. */
  from: Place | null | undefined;
  /** How often each event was handed on, may be more than once, and whether its handler has ended. */
  begun: Map<number, number>;
  excused: Map<number, number>;
  ended: Set<number>;
}

async function play(seed: number): Promise<string[]> {
  const rand = rng(seed);
  vi.spyOn(Math, 'random').mockImplementation(rng(seed + 1_000_000));
  const chance = (p: number): boolean => rand() < p;
  const pick = <T>(list: T[]): T | undefined => list[Math.floor(rand() * list.length)];
  Channel.rand = rand;
  (rejections as unknown[]).length = 0;
  const server = new Server(rand);
  const origin = new FakeLocks();
  const problems: string[] = [];
  const trace: string[] = [];
  const note = (line: string): void => void trace.push(line);
  Channel.note = note;
  let record: Place | null = null;
  let calm = false;
  const tabs: Tab[] = [];
  const position = (id: number): number => server.log.indexOf(id) + 1;
  const covers = (place: Place, id: number): boolean =>
    position(id) <= Number(place.cursor!.slice(1)) || place.ids.includes(id) || place.idsBefore.includes(id);

  /** Whether the tab has followed, and answered, for so long that it has to be waited for. */
  function isGood(tab: Tab): boolean {
    const isBad =
      tab.isDead || tab.isFrozen || tab.isPaused || tab.isClosing || tab.client.state.status !== 'live' ||
      [...tab.sockets].some(({ readyState }) => readyState !== 3);
    if (isBad) tab.badAt = performance.now();
    return performance.now() - tab.badAt > 4_000;
  }

  const storeOf = (tab: Tab): CursorStore => sharedStore('shared', {
    async load() {
      if (chance(0.3)) await new Promise((resolve) => setTimeout(() => resolve(null), rand() * 50));
      tab.from ??= record;
      note(`    ${tab.number} loads ${record?.cursor}+${record?.ids.length} ${record?.term}.${record?.frame}`);
      return record && { ...record };
    },
    async save(change) {
      const { cursor, added, term, frame } = change;
      let place: Place = { cursor, ids: [...change.ids], idsBefore: [...change.idsBefore], term, frame };
      if (chance(0.1)) await new Promise((resolve) => setTimeout(() => resolve(null), rand() * 300));
      if (tab.isDead) return new Promise(() => {});
      if (record && term! < record.term!) return note(`    ${tab.number} is refused ${term}.${frame}`);
      // As IndexedDB does.
      if (record && added) place = { ...record, ids: [...record.ids, ...added], term, frame };
      for (const id of server.log) {
        if (tab.from && covers(place, id) && !covers(tab.from, id) && !tab.ended.has(id)) {
          problems.push(`${tab.number} saves ${cursor}, and has not ended ${position(id)}`);
        }
      }
      for (const other of alive()) {
        // One that follows, and has for long. After a reset whose handler has read state each goes on by itself.
        if (frame === undefined || tab.isClosing || tab.isPaused || other === tab || !isGood(other) || tab.queueFramesMax < 10_000) continue;
        for (const id of server.log) {
          if (other.from && covers(place, id) && !covers(other.from, id) && !other.ended.has(id)) {
            problems.push(`${tab.number} saves ${cursor}, and ${other.number} has not ended ${position(id)}`);
          }
        }
      }
      note(`    ${tab.number} saves ${cursor}+${place.ids.length} ${term}.${frame}`);
      record = place;
    },
    clear() {},
  });

  function open(): void {
    const tab = {
      number: tabs.length + 1,
      view: origin.tab(),
      sockets: new Set<Conn>(),
      isDead: false,
      isFrozen: false,
      isHidden: chance(0.3),
      isPaused: false,
      isClosing: false,
      badAt: performance.now(),
      queueFramesMax: chance(0.3) ? 8 : 10_000,
      frozen: [],
      begun: new Map(),
      excused: new Map(),
      ended: new Set(),
    } as unknown as Tab;
    const locks = {
      request: (...[name, options, callback]: Parameters<typeof tab.view.request>) =>
        tab.view.request(name, options, (lock) => {
          // A frozen tab has the lock, and does not know it yet.
          if (!tab.isFrozen) return running.run(tab, () => callback(lock));
          return new Promise((resolve) => inTab(tab, () => resolve(callback(lock))));
        }),
    };
    const Socket = class extends Conn {
      constructor(url: string) {
        super(server, url);
        tab.sockets.add(this);
        tab.badAt = performance.now();
        if (tab.isDead) this.readyState = 3;
      }
      override receive(data: object): void {
        note(`      ${tab.number} < ${JSON.stringify(data)}`);
        inTab(tab, () => super.receive(data));
      }
      override lose(code: number): void {
        inTab(tab, () => super.lose(code));
      }
    };
    tabs.push(tab);
    running.run(tab, () => {
      const client = new RealtimeClient({
        url: 'ws://x',
        userId: USER,
        WebSocket: Socket as never,
        random: rand,
        cursorStore: storeOf(tab),
        locks,
        queueFramesMax: tab.queueFramesMax,
        handlerTimeoutMs: 3_600_000,
        logger: ({ event, message }) => event === 'state' || note(`  ${tab.number} ${event} ${message}`),
      });
      Object.assign(tab, { client });
      client.on('message', async ({ id }, { signal, attempt }) => {
        if (attempt === 1) {
          const times = (tab.begun.get(id!) ?? 0) + 1;
          tab.begun.set(id!, times);
          note(`    ${tab.number} is given ${position(id!)}`);
          if (tab.from && covers(tab.from, id!) && !tab.excused.get(id!)) problems.push(`${tab.number} is given ${position(id!)}, which was handled before it began at ${tab.from.cursor}`);
          if (times > 1 + (tab.excused.get(id!) ?? 0)) problems.push(`${tab.number} is given ${position(id!)} again`);
        }
        const what = calm ? 0 : rand();
        if (what > 0.95) throw new Error('fails');
        if (what > 0.7) await new Promise((resolve) => setTimeout(() => resolve(null), rand() * (chance(0.1) ? 8_000 : 60)));
        if (!signal.aborted) tab.ended.add(id!);
      });
      client.on('reset', async () => {
        if (chance(0.5)) await new Promise((resolve) => setTimeout(() => resolve(null), rand() * 300));
        const at = server.log.length;
        note(`    ${tab.number} is reset at ${at}`);
        for (const id of server.log) tab.ended.add(id);
        if (chance(0.5)) return `c${at}`;
        // From the reset's own cursor: what is covered comes again, or for the first time.
        for (const id of server.log) tab.excused.set(id, (tab.excused.get(id) ?? 0) + 1);
        return undefined;
      });
      client.on('state', ({ status }) => {
        note(`  ${tab.number} ${status}`);
        if (status !== 'live') tab.badAt = performance.now();
      });
      void client.connect();
    });
  }
  const alive = (): Tab[] => tabs.filter(({ isDead }) => !isDead);

  function die(tab: Tab): void {
    tab.isDead = true;
    tab.view.crash();
    Channel.closeOf(tab);
    for (const socket of tab.sockets) socket.vanish();
  }

  open();
  for (let i = 0; i < 50 && !record; i++) await vi.advanceTimersByTimeAsync(500);
  if (!record) return [`seed ${seed}`, "no place", ...trace, ...rejections.map((x) => (x as Error).stack ?? `${x}`)];
  for (let step = 0; step < 120 && !problems.length; step++) {
    const op = Math.floor(rand() * 24);
    const tab = pick(alive().filter(({ isClosing }) => !isClosing));
    const conn = pick([...server.conns]);
    alive().forEach(isGood);
    note(`${step} op ${op} tab ${tab?.number} log ${server.log.length}`);
    if (op < 8) for (let n = 1 + Math.floor(rand() * 5); n--; ) server.emit();
    else if (op === 8) conn?.sayCursor();
    else if (op === 9) conn?.end([1006, 1012, 4008, 1011][Math.floor(rand() * 4)]!);
    else if (op === 10 && conn && chance(0.4)) {
      conn.frame({ type: 'reset', reason: 'truncated', cursor: ((conn.sent = server.log.length), conn.next()) });
    } else if (op === 11 || (op === 12 && alive().length < 3)) open();
    else if (op === 13 && tab && !tab.isFrozen) {
      const { client } = tab;
      tab.isClosing = true;
      running.run(tab, () => void client.close().then(() => (tab.isDead = true)));
    } else if (op === 14 && tab) die(tab);
    else if (op === 15 && tab) tab.isFrozen = true;
    else if (op === 16 && tab) thaw(tab);
    else if (op === 17 && tab) tab.isHidden = !tab.isHidden;
    else if (op === 18 && tab && !tab.isFrozen) {
      running.run(tab, () => (tab.isPaused ? tab.client.resume() : tab.client.pause()));
      tab.isPaused = !tab.isPaused;
    } else if (op === 19 && tab && !tab.isFrozen && !tab.isPaused) running.run(tab, () => tab.client.reconnect());
    else if (op > 19) await vi.advanceTimersByTimeAsync(rand() * (chance(0.3) ? 20_000 : 300));
    if (chance(0.6)) await vi.advanceTimersByTimeAsync(rand() * 20);
    else if (chance(0.5)) await settle();
    if (alive().length > 4) die(pick(alive())!);
  }
  // All is well from here on: everything has to be handed on, in every tab.
  calm = true;
  for (const tab of alive()) {
    thaw(tab);
    tab.isHidden = false;
    if (tab.isPaused) running.run(tab, () => tab.client.resume());
  }
  if (!alive().length) open();
  await vi.advanceTimersByTimeAsync(10_000);
  server.emit();
  for (let i = 0; i < 60; i++) await vi.advanceTimersByTimeAsync(2_000);
  for (const { number, client, from, ended } of alive()) {
    if (client.state.status === 'closed') continue;
    if (client.state.status !== 'live') problems.push(`${number} at the end ${JSON.stringify(client.state)}`);
    for (const id of server.log) {
      if (from && !covers(from, id) && !ended.has(id)) problems.push(`${number} has lost ${position(id)}`);
    }
  }
  for (const tab of alive()) running.run(tab, () => void tab.client.close());
  await vi.advanceTimersByTimeAsync(12_000);
  if (server.conns.size) problems.push(`${server.conns.size} connections after close, of ${tabs.filter(({ sockets }) => [...sockets].some((socket) => server.conns.has(socket))).map(({ number, isDead, isFrozen }) => `${number} ${isDead} ${isFrozen}`)}`);
  if (rejections.length) problems.push(`unhandled ${rejections.map(String)}`);
  return problems.length
    ? [`seed ${seed}`, ...problems.slice(0, 8), ...(process.env.TRACE ? trace.slice(-Number(process.env.TRACE)) : [])]
    : [];
}

describe('tabs', () => {
  it('lose nothing, repeat nothing', async () => {
    const bad: string[][] = [];
    for (let seed = FROM; seed < FROM + SEEDS; seed++) {
      const problems = await play(seed);
      vi.clearAllTimers();
      vi.restoreAllMocks();
      Channel.all.clear();
      if (problems.length) bad.push(problems);
    }
    expect(bad.length, `${bad.length} of ${SEEDS}: ${JSON.stringify(bad.slice(0, 5), null, 1)}`).toBe(0);
  });
});
