/** From the writing of an event's row to its arrival in the page. */

import type { Reader } from './api.ts';
import type { Arrival } from './tap.ts';

/** Ids in one question; the service's bound. */
const IDS_MAX = 256;
/** How long the first id waits for others, so that a flood of events is a few questions a second. */
const GATHER_MS = 150;

interface Waiting {
  readonly id: number;
  readonly since: string;
  readonly tell: (writtenMs: number) => void;
}

/** Asks for many events at once when their rows were written. */
export class WrittenTimes {
  private waiting: Waiting[] = [];
  private isAsking = false;

  constructor(private readonly reader: Reader) {}

  /**
   * Calls `tell` with the time by the database's clock. Never, where there is no log, or when too many
   * wait: the list does not show the oldest of them any more.
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
      // The events are shown without a latency; that the service does not answer, the figures tell.
    } finally {
      this.isAsking = this.waiting.length > 0;
      if (this.isAsking) setTimeout(() => void this.askAll(), GATHER_MS);
    }
  }
}
