/** Tabs in one process: whose code runs, what is frozen, and what is seen. */

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import { afterEach, beforeEach, vi } from 'vitest';

/** A tab, as far as the browser knows. */
export interface TabState {
  readonly number: number;
  isDead: boolean;
  isFrozen: boolean;
  isHidden: boolean;
  /** What is done when it thaws. */
  frozen: (() => void)[];
}

/** The tab whose code runs. */
export const running = new AsyncLocalStorage<TabState>();

/** Calls `work` as the tab's code: later, if it is frozen, and never if it has died. */
export function inTab(tab: TabState | undefined, work: () => void): void {
  if (!tab) return work();
  if (tab.isDead) return;
  if (tab.isFrozen) tab.frozen.push(work);
  else running.run(tab, work);
}

export function thaw(tab: TabState): void {
  tab.isFrozen = false;
  for (const work of tab.frozen.splice(0)) inTab(tab, work);
}

/** Fake, but nobody's. */
let realTimeout: (work: () => void, ms: number) => unknown;

/** The channels of the origin: what one posts comes to the others in order, and later. */
export class Channel {
  static all = new Set<Channel>();
  static rand: () => number = () => 1;
  static note: (line: string) => void = () => {};
  onmessage: ((event: { data: unknown }) => void) | null = null;
  private readonly tab = running.getStore()!;
  private isClosed = false;
  private last = Promise.resolve();
  constructor(readonly name: string) {
    Channel.all.add(this);
  }
  static closeOf(tab: TabState): void {
    for (const channel of [...Channel.all]) if (channel.tab === tab) channel.close();
  }
  postMessage(data: unknown): void {
    if (this.tab.isDead) return;
    if (this.isClosed) throw new DOMException('closed', 'InvalidStateError');
    const copy = structuredClone(data);
    Channel.note(`      ${this.tab.number} > ${JSON.stringify(data)}`);
    for (const other of Channel.all) {
      if (other === this || other.name !== this.name) continue;
      const wait = Channel.rand() < 0.1 ? Channel.rand() * 40 : 0;
      other.last = other.last
        .then(() => (wait ? new Promise<void>((resolve) => realTimeout(resolve, wait)) : undefined))
        .then(() => inTab(other.tab, () => other.isClosed || other.onmessage?.({ data: structuredClone(copy) })));
    }
  }
  close(): void {
    this.isClosed = true;
    Channel.all.delete(this);
  }
}

/** Timers, channels and `document` are each tab's own. After `underFakeTimers`. */
export function underTabs(): void {
  beforeEach(() => {
    const { setTimeout: timeout, setInterval: interval } = globalThis;
    realTimeout = timeout;
    const bound = (work: () => void): (() => void) => {
      const tab = running.getStore();
      return AsyncResource.bind(() => inTab(tab, work));
    };
    vi.stubGlobal('setTimeout', (work: () => void, ms?: number) => timeout(bound(work), ms));
    vi.stubGlobal('setInterval', (work: () => void, ms?: number) => interval(bound(work), ms));
    vi.stubGlobal('BroadcastChannel', Channel);
    vi.stubGlobal('document', {
      addEventListener() {},
      get visibilityState() {
        return running.getStore()?.isHidden ? 'hidden' : 'visible';
      },
    });
  });
  afterEach(() => Channel.all.clear());
}
