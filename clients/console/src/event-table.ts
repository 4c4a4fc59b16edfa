/** The events, newest first. Each event keeps its row from one drawing to the next. */

import { find } from './find.ts';
import type { Shown, Watch } from './watch.ts';
import { sayEvent, sayMs, sayTime } from './words.ts';

export class EventTable {
  private rows = new Map<Shown, HTMLTableRowElement>();

  draw(watch: Watch): void {
    const rows = new Map<Shown, HTMLTableRowElement>();
    for (const shown of watch.events) rows.set(shown, this.rows.get(shown) ?? makeRow(shown));
    for (const [shown, row] of this.rows) if (!rows.has(shown)) row.remove();
    const body = find('events');
    let next = body.firstElementChild;
    for (const [shown, row] of rows) {
      showLatency(row, watch.latencyMs(shown));
      if (row === next) next = next.nextElementSibling;
      else body.insertBefore(row, next);
    }
    this.rows = rows;
    find('no-events').hidden = rows.size > 0;
    const agree = watch.clock.best;
    if (agree) find('clock-note').textContent = noteOf(agree.uncertaintyMs);
  }
}

function noteOf(uncertaintyMs: number): string {
  return (
    "Latency is from the row's writing to its event's arrival in this page; the two clocks are known to " +
    `± ${sayMs(uncertaintyMs)}.`
  );
}

function makeRow({ event, atMs, replayed }: Shown): HTMLTableRowElement {
  const row = document.createElement('tr');
  const cell = (text: string, className = ''): HTMLTableCellElement => {
    const made = row.insertCell();
    made.textContent = text;
    made.className = className;
    return made;
  };
  cell(sayTime(atMs));
  cell(event.type);
  cell(event.id === undefined ? '–' : String(event.id), 'number id');
  cell(sayEvent(event), 'about');
  const latency = cell('', 'number');
  if (replayed) {
    const tag = document.createElement('span');
    tag.className = 'tag';
    tag.textContent = 'replayed';
    latency.append(tag);
  }
  latency.append('');
  return row;
}

function showLatency(row: HTMLTableRowElement, latencyMs: number | undefined): void {
  const text = row.lastElementChild?.lastChild as Text;
  const said = latencyMs === undefined ? '–' : sayMs(latencyMs);
  if (text.data !== said) text.data = said;
}
