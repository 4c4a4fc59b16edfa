/** `for await`: the loop's body is the handler, and asking for the next event says that it has ended. */

import { RealtimeError } from './errors.js';
import { LEFT } from './pump.js';
import type { ClientState, RealtimeEvent } from './types.js';

type Closed = ClientState & { status: 'closed' };

export interface Loop {
  readonly events: AsyncGenerator<RealtimeEvent, undefined, undefined>;
  /** Hands on an event. Ends when the loop's body has. */
  hand(event: RealtimeEvent): Promise<void>;
  /** The client is closed: the loop ends, with an error if nobody wanted it. */
  close(state: Closed): void;
}

/** `begin` is called at the first `next()`, `left` when the loop has ended. */
export function loopOf(begin: () => void, left: () => void): Loop {
  let offer: { event: RealtimeEvent; resolve(): void; reject(reason: unknown): void } | undefined;
  let closed: Closed | undefined;
  let wake: (() => void) | undefined;

  async function* loop(): AsyncGenerator<RealtimeEvent, undefined, undefined> {
    begin();
    try {
      while (!closed) {
        if (offer) {
          const mine = offer;
          yield mine.event;
          mine.resolve();
          if (offer === mine) offer = undefined;
        } else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      // Left in its body: nobody knows whether that has done its work, so the event is to come again.
      offer?.reject(LEFT);
      left();
    }
    const { reason, error } = closed;
    if (reason !== 'closed') {
      throw new RealtimeError('closed', `closed: ${reason}`, { code: reason, cause: error });
    }
    return undefined;
  }

  return {
    events: loop(),
    hand: (event) =>
      new Promise((resolve, reject) => {
        offer = { event, resolve, reject };
        wake?.();
      }),
    close(state) {
      closed = state;
      wake?.();
    },
  };
}
