/** This machine's clock, and the offset of the service's clock. */

/** Milliseconds since 1970, finer than `Date.now()`. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** Samples that are kept: those of the last minute, at one a second. */
const SAMPLES_MAX = 60;

interface Sample {
  readonly offsetMs: number;
  readonly uncertaintyMs: number;
}

/**
 * Estimates the offset from answers that carry the service's time. The service took the time between the request
 * and its answer, so the estimate is wrong by at most half of the round trip. The sample with the shortest round trip
 * of the last minute is used.
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

  /** Converts a time of this machine's clock to the service's clock. */
  toTheirs(oursMs: number): number {
    return oursMs + (this.best?.offsetMs ?? 0);
  }
}
