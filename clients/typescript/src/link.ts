/**
 * One socket's life: from the handshake to its end, whoever ends it.
 *
 * Tells its owner of each frame, and once of its end. A link that is silent for longer than the
 * server's heartbeat is asked with a ping, and given up if nothing comes; TCP alone may take many
 * minutes to notice. Never connects again: that is its owner's.
 */

import {
  HEARTBEAT_SHORTEST_MS,
  HELLO_TIMEOUT_MS,
  PONG_TIMEOUT_MS,
  SUSPECT_TIMEOUT_MS,
} from './bounds.js';
import type { RealtimeError } from './errors.js';
import { type Frame, type Hello, readFrame } from './frames.js';
import { type Timer, later, now } from './timer.js';
import type { ClientOptions, WebSocketLike } from './types.js';

/** Of the heartbeat, how much silence is asked about. */
const SILENCE_FACTOR = 1.5;
const OPEN = 1;

/** What a server of this protocol says when it closes; a proxy says nothing of it. */
export interface CloseReason {
  readonly message?: string;
  readonly retry_after_ms?: number;
}

export interface LinkOwner {
  onFrame(frame: Frame, characters: number): void;
  report(error: RealtimeError): void;
  /** The link is over; if the socket was closed, with its close code and the reason that came with it. */
  onEnd(reason: 'socket' | 'silent', code?: number, why?: CloseReason): void;
}

export interface Link {
  /** Sends a frame, unless the socket is not open: its end is then on its way. */
  send(frame: object): void;
  /** Asks whether the other side is there, and gives it this long to show it. */
  probe(timeoutMs?: number): void;
  /** Ends the link without a word to its owner. */
  drop(): void;
}

/** Takes a socket that is about to open. */
export function linkOf(
  socket: WebSocketLike,
  { helloTimeoutMs = HELLO_TIMEOUT_MS, pongTimeoutMs = PONG_TIMEOUT_MS }: ClientOptions,
  { onFrame, report, onEnd }: LinkOwner,
): Link {
  let timer: Timer;
  let heardAt = 0;
  /** NaN until the hello. */
  let silenceMs = NaN;
  let isAsking = false;

  function after(ms: number, work: () => void): void {
    clearTimeout(timer);
    timer = later(ms, work);
  }

  function drop(): void {
    clearTimeout(timer);
    socket.onmessage = socket.onclose = null;
    // `onerror` stays: closing a socket that is not open yet is an error to some, and some throw.
    try {
      socket.close(1000);
    } catch {
      // It is closed.
    }
  }

  function end(...how: Parameters<LinkOwner['onEnd']>): void {
    drop();
    onEnd(...how);
  }

  const giveUpIn = (ms: number): void => after(ms, () => end('silent'));

  function send(frame: object): void {
    if (socket.readyState === OPEN) socket.send(JSON.stringify(frame));
  }

  function probe(timeoutMs = SUSPECT_TIMEOUT_MS): void {
    if (isAsking) return;
    isAsking = true;
    send({ type: 'ping' });
    giveUpIn(timeoutMs);
  }

  /** Sets the timer to when there will have been silence for too long. */
  function listen(): void {
    after(heardAt + silenceMs - now(), () => {
      // Set once and not at every frame, so it may be early.
      if (now() - heardAt < silenceMs) listen();
      else probe(pongTimeoutMs);
    });
  }

  socket.onmessage = ({ data }: { data: unknown }): void => {
    heardAt = now();
    let frame;
    try {
      frame = readFrame(data);
    } catch (error) {
      report(error as RealtimeError);
    }
    const isHello = frame?.type === 'hello';
    if (isHello) {
      const { heartbeat_ms } = frame as Hello;
      silenceMs = Math.max(heartbeat_ms, HEARTBEAT_SHORTEST_MS) * SILENCE_FACTOR;
    }
    if (isHello || (isAsking && silenceMs)) {
      isAsking = false;
      listen();
    }
    if (frame) onFrame(frame, `${data}`.length);
  };
  socket.onclose = ({ code, reason }: { code: number; reason?: string }): void =>
    end('socket', code, reasonOf(reason));
  socket.onerror = (): void => {};
  giveUpIn(helloTimeoutMs);
  return { send, probe, drop };
}

function reasonOf(reason = ''): CloseReason {
  try {
    const { message, retry_after_ms: waitMs } = JSON.parse(reason) as CloseReason;
    return { message: `${message}`, retry_after_ms: waitMs! >= 0 ? Number(waitMs) : 0 };
  } catch {
    return reason ? { message: reason } : {};
  }
}
