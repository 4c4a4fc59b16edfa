/** This machine's clock, and how far the service's is from it. */

/** Milliseconds since 1970, finer than `Date.now()`. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** Questions that are remembered: of the last minute, at one a second. */
const SAMPLES_MAX = 60;

interface Sample {
  readonly offsetMs: number;
  readonly uncertaintyMs: number;
}

/**
 * Estimates the offset from answers that carry the service's time. The time was taken somewhere
 * between question and answer, so that half of the round trip is what the estimate may be off by; the
 * shortest of the last minute counts.
 */
export class ClockOffset {
  private readonly samples: Sample[] = [];

  /** `undefined` before the first answer. */
  get best(): Sample | undefined {
    return this.samples.reduce<Sample | undefined>(
      (best, sample) => (best && best.uncertaintyMs <= sample.uncertaintyMs ? best : sample),
      undefined,
    );
  }

  add(askedMs: number, answeredMs: number, theirsMs: number): void {
    const uncertaintyMs = (answeredMs - askedMs) / 2;
    this.samples.push({ offsetMs: theirsMs - (askedMs + uncertaintyMs), uncertaintyMs });
    if (this.samples.length > SAMPLES_MAX) this.samples.shift();
  }

  /** A time of this machine's by the service's clock. */
  toTheirs(oursMs: number): number {
    return oursMs + (this.best?.offsetMs ?? 0);
  }
}
