/** The times at which the rows of events were created. */

import type { Reader } from './api.ts';
import type { Arrival } from './tap.ts';

/** Ids in one request; the service's bound. */
const IDS_MAX = 256;
/** The first id waits this long for others: a flood of events is a few requests a second. */
const GATHER_MS = 150;

interface Waiting {
  readonly id: number;
  readonly since: string;
  readonly tell: (writtenMs: number) => void;
}

/** Asks for the times of many events in one request. */
export class WrittenTimes {
  private waiting: Waiting[] = [];
  private isAsking = false;

  constructor(private readonly reader: Reader) {}

  /**
   * Calls `tell` with the time by the database's clock. Never calls it where there is no log. Drops the oldest
   * question when too many wait: the list no longer shows that event.
   */
  ask(id: number | undefined, arrival: Arrival | undefined, tell: (writtenMs: number) => void): void {
    const since = arrival?.since;
    if (id === undefined || since == null) return;
    this.waiting.push({ id, since, tell });
    if (this.waiting.length > IDS_MAX) this.waiting.shift();
    if (this.isAsking) return;
    this.isAsking = true;
    setTimeout(() => void this.askAll(), GATHER_MS);
  }

  private async askAll(): Promise<void> {
    const asked = this.waiting.splice(0);
    const [oldest] = asked;
    try {
      if (!oldest) return;
      const ids = asked.map(({ id }) => id);
      const times = await this.reader.times(oldest.since, ids);
      for (const { id, tell } of asked) {
        const writtenMs = times.get(id);
        if (writtenMs !== undefined) tell(writtenMs);
      }
    } catch {
      // The events are shown without a latency. That the service does not answer is shown with the figures.
    } finally {
      this.isAsking = this.waiting.length > 0;
      if (this.isAsking) setTimeout(() => void this.askAll(), GATHER_MS);
    }
  }
}
