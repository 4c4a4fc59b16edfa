/**
 * The last two minutes of three figures. Each has a chart of its own, since their scales differ. The newest value
 * stands beside the chart as text, for screen readers.
 */

import type { Stats } from './api.ts';
import { nowMs } from './clock.ts';
import { sayMs } from './words.ts';

const SPAN_MS = 120_000;
/** The size of a drawing in its own units; CSS stretches it. */
const WIDTH = 600;
const HEIGHT = 56;
/** Room for the line's own thickness, and above the largest value. */
const PADDING = 3;

interface Sample {
  readonly atMs: number;
  /** `null` where there is nothing to measure: a gap in the line. */
  readonly value: number | null;
}

type Say = (value: number) => string;

/** Maps a value to its height in the chart. */
interface Scale {
  /** The value of the upper edge, for the largest value that is shown. */
  top(most: number): number;
  /** Between 0 and 1. */
  height(value: number, top: number): number;
  /** The labels of both edges. */
  say(top: number): string;
}

/** For counts. The upper edge is at least 5, or a single event would fill the chart. */
const linear: Scale = {
  top: (most) => roundUp(Math.max(5, most)),
  height: (value, top) => value / top,
  say: (top) => `0 to ${top}`,
};

const LATENCY_LEAST_MS = 0.1;
/** For latencies: that of a replayed event is thousands of times that of a live one. */
const logarithmic: Scale = {
  top: (most) => 10 ** Math.ceil(Math.log10(Math.max(10, most))),
  height: (value, top) =>
    Math.max(0, Math.log(value / LATENCY_LEAST_MS) / Math.log(top / LATENCY_LEAST_MS)),
  say: (top) => `${LATENCY_LEAST_MS} ms to ${top < 1_000 ? `${top} ms` : `${top / 1_000} s`}`,
};

class Chart {
  private samples: Sample[] = [];
  private readonly value: Element;
  private readonly range: Element;
  private readonly line: Element;
  private readonly area: Element;

  constructor(
    figure: Element,
    private readonly say: Say,
    private readonly scale: Scale,
  ) {
    const part = (selector: string): Element => figure.querySelector(selector) as Element;
    this.value = part('.value');
    this.range = part('.scale');
    this.line = part('.line');
    this.area = part('.area');
    part('svg').setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
  }

  clear(): void {
    this.samples = [];
    this.value.textContent = '–';
    this.draw(nowMs());
  }

  add(atMs: number, value: number | null): void {
    this.samples.push({ atMs, value });
    this.samples = this.samples.filter((sample) => sample.atMs > atMs - SPAN_MS);
    this.value.textContent = value === null ? '–' : this.say(value);
    this.draw(atMs);
  }

  private draw(nowMs: number): void {
    const values = this.samples.flatMap(({ value }) => (value === null ? [] : [value]));
    const top = this.scale.top(Math.max(0, ...values));
    this.range.textContent = values.length > 0 ? this.scale.say(top) : '';
    const x = (sample: Sample): number => WIDTH * (1 - (nowMs - sample.atMs) / SPAN_MS);
    const floor = HEIGHT - PADDING;
    const y = (value: number): number => floor - this.scale.height(value, top) * (floor - PADDING);
    const runs = runsOf(this.samples).map((run) =>
      run.map((sample) => `${x(sample).toFixed(1)} ${y(sample.value ?? 0).toFixed(1)}`),
    );
    // A single sample is a line without length; round caps draw it as a dot.
    this.line.setAttribute('d', runs.map((run) => `M${run.join('L')}${run.length > 1 ? '' : 'h0'}`).join(''));
    const area = runs
      .filter((run) => run.length > 1)
      .map((run) => {
        const [first] = (run[0] as string).split(' ');
        const [last] = (run[run.length - 1] as string).split(' ');
        return `M${first} ${floor}L${run.join('L')}L${last} ${floor}Z`;
      });
    this.area.setAttribute('d', area.join(''));
  }
}

export class Charts {
  private readonly connections: Chart;
  private readonly events: Chart;
  private readonly latency: Chart;
  private before: Stats | undefined;

  constructor(find: (id: string) => Element) {
    const tenths: Say = (value) => value.toFixed(value < 10 ? 1 : 0);
    this.connections = new Chart(find('chart-connections'), String, linear);
    this.events = new Chart(find('chart-events'), tenths, linear);
    this.latency = new Chart(find('chart-latency'), sayMs, logarithmic);
  }

  clear(): void {
    this.before = undefined;
    for (const chart of [this.connections, this.events, this.latency]) chart.clear();
  }

  add(stats: Stats): void {
    const { before } = this;
    const atMs = nowMs();
    const seconds = before ? (stats.now_ms - before.now_ms) / 1_000 : 0;
    const events = before ? stats.events_delivered_total - before.events_delivered_total : -1;
    this.connections.add(atMs, stats.connections_open);
    // The service was restarted and counts from zero.
    this.events.add(atMs, seconds > 0 && events >= 0 ? events / seconds : null);
    this.latency.add(atMs, stats.delivery_latency_p99_ms);
    this.before = stats;
  }

  /** The service did not answer. */
  gap(): void {
    this.before = undefined;
    for (const chart of [this.connections, this.events, this.latency]) chart.add(nowMs(), null);
  }
}

/** The runs of samples without a gap. */
function runsOf(samples: readonly Sample[]): Sample[][] {
  const runs: Sample[][] = [];
  let isOpen = false;
  for (const sample of samples) {
    if (sample.value !== null) {
      if (isOpen) runs.at(-1)?.push(sample);
      else runs.push([sample]);
    }
    isOpen = sample.value !== null;
  }
  return runs;
}

/** Rounds up to 1, 2 or 5 times a power of ten. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10) * power;
}
