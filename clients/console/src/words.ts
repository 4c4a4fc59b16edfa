/** The page's texts for states, errors and numbers. */

import {
  type ClientState,
  type ClosedReason,
  type LostReason,
  RealtimeError,
  type RealtimeEvent,
} from '../../typescript/src/index.ts';
import { Refusal } from './api.ts';

export type Tone = 'good' | 'waiting' | 'rest' | 'bad';

export interface Said {
  readonly tone: Tone;
  readonly label: string;
  readonly detail: string;
}

const LOST: Record<LostReason, string> = {
  socket: 'The connection was lost',
  silent: 'Nothing came for too long',
  goaway: 'The server is ending and gave this client its time',
  overflow: 'More events came than the page could show',
  proof: 'There was no proof to connect with',
  restart: 'Goes on from another place',
  paused: 'The page was left',
  reconnect: 'Connects anew',
};

const CLOSED: Record<ClosedReason, string> = {
  not_started: 'Choose whose events to watch.',
  closed: 'Disconnected. The place is kept: connecting again brings what was missed.',
  unauthenticated: 'The server does not accept the proof of identity',
  revoked: 'The user or the device was deleted',
  refused: 'The server refuses this client',
  handler_failed: 'The page failed at an event',
  signed_out: 'Nobody is signed in',
  unsupported: 'This browser cannot connect',
};

export function sayState(state: ClientState): Said {
  switch (state.status) {
    case 'connecting':
      return { tone: 'waiting', label: 'connecting', detail: '' };
    case 'live':
      return state.resumed
        ? { tone: 'good', label: 'live (resumed)', detail: 'The stream went on from where it was.' }
        : { tone: 'good', label: 'live', detail: 'Events come as they are committed.' };
    case 'reconnecting': {
      const lost = withCode(LOST[state.reason], state.code);
      const wait = `Try ${state.attempt} in ${sayMs(state.retryInMs)}.`;
      return { tone: 'waiting', label: 'reconnecting', detail: `${lost} ${wait}` };
    }
    case 'closed': {
      const isWanted = state.reason === 'closed' || state.reason === 'not_started';
      const detail = isWanted ? CLOSED[state.reason] : withCode(CLOSED[state.reason], state.code);
      const label = state.reason === 'not_started' ? 'not connected' : 'closed';
      return { tone: isWanted ? 'rest' : 'bad', label, detail };
    }
  }
}

/** The service's own message where it sent one. */
export function sayError(error: unknown): string {
  if (error instanceof Refusal) return `${error.status} ${error.code}: ${error.message}`;
  if (error instanceof RealtimeError) return `${error.code ?? error.kind}: ${error.message}`;
  return `The service does not answer: ${error instanceof Error ? error.message : String(error)}`;
}

export function sayMs(ms: number): string {
  if (ms >= 1_000) return `${(ms / 1_000).toFixed(2)} s`;
  return `${ms.toFixed(ms < 100 ? 1 : 0)} ms`;
}

/** The fields that every event may have. */
const COMMON_FIELDS = ['type', 'user_id', 'id', 'cursor'];

/** What an event is about, beside its type. */
export function sayEvent(event: RealtimeEvent): string {
  switch (event.type) {
    case 'message':
      return event.chat_id ? `chat ${short(event.chat_id)}` : 'no chat';
    case 'session':
      return `device ${short(event.sender_device_id)} to ${short(event.receiver_device_id)}`;
    case 'device':
      return 'a device of the user';
    case 'pending_session':
      return `device ${short(event.sender_device_id)} asks ${short(event.recipient_device_id)}`;
    default: {
      const fields = Object.keys(event).filter((name) => !COMMON_FIELDS.includes(name));
      return fields.join(', ') || 'no more fields';
    }
  }
}

/** Local time with milliseconds. */
export function sayTime(ms: number): string {
  const time = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, '0');
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(':');
  return `${clock}.${String(time.getMilliseconds()).padStart(3, '0')}`;
}

/** The beginning of a UUID. */
function short(id: string): string {
  return id.slice(0, 8);
}

function withCode(words: string, code: number | undefined): string {
  return code === undefined ? `${words}.` : `${words}, close code ${code}.`;
}
