/** The page's controls and what they do. */

import { type DemoUser, type Facts, type Identity, fetchFacts, sendDemoMessage } from './api.ts';
import { nowMs } from './clock.ts';
import { Charts } from './charts.ts';
import { EventTable } from './event-table.ts';
import { find } from './find.ts';
import { drawNodes } from './node-table.ts';
import { CUT_MS, type Shown, Watch } from './watch.ts';
import { sayError, sayMs, sayState } from './words.ts';

/** A message that was sent from the form and whose event has not arrived yet. */
interface Sent {
  readonly askedMs: number;
  /** When the answer came: the row exists from then on at the latest. */
  answeredMs?: number;
}

/** The service's address is the page's own, with what a proxy puts before the path. */
const base = new URL('.', location.href);
const charts = new Charts(find);
const table = new EventTable();
let facts: Facts;
let watch: Watch | undefined;
let sent: Sent | undefined;
let isDrawing = false;

void begin();

async function begin(): Promise<void> {
  try {
    facts = await fetchFacts(base);
  } catch (error) {
    return showError(sayError(error));
  }
  find('version').textContent = facts.version;
  offerWays(facts);
  const named = new URLSearchParams(location.hash.slice(1)).get('user_id');
  if (named && facts.auth === 'none') void connect({ userId: named });
}

// Choosing the user.

function offerWays({ auth, demo }: Facts): void {
  const isDeviceOnly = auth === 'device';
  find('device-only').hidden = !isDeviceOnly;
  find('connect-form').hidden = isDeviceOnly;
  if (auth !== 'none') {
    find('who-label').textContent = 'Token';
    const field = find<HTMLInputElement>('who');
    // A token must not be readable on the screen.
    field.type = 'password';
  }
  if (!demo) return;
  find('demo').hidden = find('demo-users').hidden = false;
  find('who-label').textContent = 'Or a user id';
  for (const user of demo) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = user.username;
    button.dataset.user = user.id;
    button.setAttribute('aria-pressed', 'false');
    button.onclick = () => void connect({ userId: user.id });
    find('demo-users').append(button);
    for (const select of ['send-from', 'send-to']) {
      find<HTMLSelectElement>(select).append(new Option(user.username));
    }
  }
  address(demo[1]);
}

find<HTMLFormElement>('connect-form').onsubmit = (event) => {
  event.preventDefault();
  const said = find<HTMLInputElement>('who').value.trim();
  if (!said) return showError(facts.auth === 'none' ? 'Whose? Name a user by the id.' : 'There is no token.');
  void connect(facts.auth === 'none' ? { userId: said } : { token: said });
};

async function connect(identity: Identity): Promise<void> {
  disconnect();
  showError(undefined);
  charts.clear();
  const user = 'userId' in identity ? identity.userId : (subject(identity.token) ?? 'the token’s user');
  const started = new Watch(base, identity, user, {
    changed: draw,
    state: (state) => {
      showState(sayState(state));
      const isRefused = state.status === 'closed' && state.reason !== 'closed';
      if (isRefused) void started.explain().then((why) => why && showError(sayError(why)));
    },
    error: (error) => showError(sayError(error)),
    stats: (stats) => {
      find('stats-error').hidden = !(stats instanceof Error);
      if (stats instanceof Error) {
        charts.gap();
        find('stats-error').textContent = sayError(stats);
      } else {
        charts.add(stats);
      }
    },
    nodes: drawNodes,
    written: noteArrival,
  });
  watch = started;
  draw();
  try {
    await started.start();
  } catch (error) {
    if (watch !== started) return;
    disconnect();
    return showError(sayError(error));
  }
  if (watch === started) showWatching(user, identity);
}

function disconnect(): void {
  watch?.stop();
  watch = undefined;
  showWatching(undefined);
}

function showWatching(user: string | undefined, identity?: Identity): void {
  const demo = facts.demo?.find(({ id }) => id === user);
  find('watching').hidden = user === undefined;
  find('watching-name').textContent = demo?.username ?? '';
  find('watching-id').textContent = user ?? '';
  for (const button of find('demo-users').querySelectorAll('button')) {
    button.setAttribute('aria-pressed', String(button.dataset.user === user));
  }
  if (demo) address(demo);
  // A reload shows the same user, and so does the address when it is shared. It never has a token.
  const hash = identity && 'userId' in identity ? `#user_id=${encodeURIComponent(identity.userId)}` : '';
  if (user !== undefined) history.replaceState(null, '', `${location.pathname}${location.search}${hash}`);
}

find('disconnect').onclick = () => {
  disconnect();
  history.replaceState(null, '', location.pathname + location.search);
};

// The link.

find('break').onclick = () => {
  if (!watch || watch.isCut) return;
  watch.breakLink();
  draw();
  setTimeout(draw, CUT_MS + 1);
};

// Messages between the demo users.

/** Fills in the form so that this user gets the message. */
function address(to: DemoUser | undefined): void {
  const from = facts.demo?.find((user) => user !== to);
  if (!to || !from) return;
  find<HTMLSelectElement>('send-to').value = to.username;
  find<HTMLSelectElement>('send-from').value = from.username;
}

find<HTMLFormElement>('send-form').onsubmit = (event) => {
  event.preventDefault();
  void send();
};

async function send(): Promise<void> {
  const valueOf = (id: string): string => find<HTMLInputElement | HTMLSelectElement>(id).value;
  const to = valueOf('send-to');
  const note = find('sent');
  const mine: Sent = (sent = { askedMs: nowMs() });
  note.textContent = 'Sending.';
  try {
    await sendDemoMessage(base, { from: valueOf('send-from'), to, text: valueOf('send-text') });
  } catch (error) {
    note.textContent = `Not sent. ${sayError(error)}`;
    return;
  }
  mine.answeredMs = nowMs();
  if (sent !== mine) return;
  const took = `Answered in ${sayMs(mine.answeredMs - mine.askedMs)}`;
  const isHere = watch && find('watching-name').textContent === to;
  if (!isHere) note.textContent = `${took}. It goes to ${to}, whose events are not watched here.`;
  else if (watch?.isCut) note.textContent = `${took}. The link is broken: it arrives when that is back.`;
  else note.textContent = `${took}.`;
  // The event may have arrived before the answer.
  for (const shown of watch?.events ?? []) noteArrival(shown);
}

/** An event's time is known. If it lies within the request of the form, the event is that of the form's row. */
function noteArrival(shown: Shown): void {
  const { writtenMs } = shown;
  if (!watch || writtenMs === undefined || sent?.answeredMs === undefined) return;
  const tolerance = (watch.clock.best?.uncertaintyMs ?? 0) + 1;
  if (writtenMs < watch.clock.toTheirs(sent.askedMs) - tolerance) return;
  if (writtenMs > watch.clock.toTheirs(sent.answeredMs) + tolerance) return;
  const took = sayMs(sent.answeredMs - sent.askedMs);
  const latency = sayMs(watch.latencyMs(shown) ?? 0);
  find('sent').textContent = `Answered in ${took}. Arrived here ${latency} after its row was written.`;
  sent = undefined;
}

// Drawing.

function showState({ tone, label, detail }: ReturnType<typeof sayState>): void {
  find('state').dataset.tone = tone;
  find('state-label').textContent = label;
  find('state-detail').textContent = detail;
}

function showError(text: string | undefined): void {
  find('error').hidden = text === undefined;
  find('error').textContent = text ?? '';
}

/** Draws once for all changes until the next frame. */
function draw(): void {
  if (isDrawing || !watch) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    // The counts stay visible after the end.
    if (!watch) return;
    for (const [name, count] of Object.entries(watch.counts)) {
      find(`count-${name}`).textContent = String(count);
    }
    find('cursor').textContent = watch.cursor ?? 'none';
    find('break').setAttribute('aria-disabled', String(watch.isCut));
    find('break').textContent = watch.isCut ? 'Link broken' : 'Break the link';
    table.draw(watch);
  });
}

/** The user of a token, which the service checks and this page only shows. */
function subject(token: string): string | undefined {
  try {
    const part = (token.split('.')[1] ?? '').replace(/-/g, '+').replace(/_/g, '/');
    return (JSON.parse(atob(part)) as { sub?: string }).sub;
  } catch {
    return undefined;
  }
}
