/** The messages of one user, kept complete by the realtime service. */

import { type ClientState, RealtimeClient } from '@hushnet/realtime';
import { useEvents, useRealtime } from '@hushnet/realtime/react';
import { useCallback, useEffect, useState } from 'react';
import { type Message, type Person, fetchHistory, markDelivered } from './api.ts';

interface Messages {
  readonly state: ClientState;
  /** Oldest first. */
  readonly messages: readonly Message[];
  /** Shows a message that the user has sent: no event tells the sender. */
  readonly add: (messages: readonly Message[]) => void;
  readonly error: string | undefined;
}

export function useMessages(client: RealtimeClient, me: Person): Messages {
  const state = useRealtime(client);
  const newest = useEvents(client, 'message', 1)[0];
  const [messages, setMessages] = useState<readonly Message[]>([]);
  const [error, setError] = useState<string>();
  const add = useCallback((more: readonly Message[]) => setMessages((known) => merge(known, more)), []);
  const fail = (cause: unknown): void => setError(String(cause));

  useEffect(() => void fetchHistory(me.id).then(add, fail), [me, add]);

  // An event says that there is something, the read says what. Once live, whatever is written later
  // makes an event; so the reads together miss nothing, and one that repeats another changes nothing.
  const isLive = state.status === 'live';
  useEffect(() => {
    if (isLive) readPending(client, me, add).then(() => setError(undefined), fail);
  }, [client, me, add, isLive, newest]);

  return { state, messages, add, error };
}

async function readPending(client: RealtimeClient, me: Person, add: Messages['add']): Promise<void> {
  for (let more = true; more; ) {
    const read = await client.fetchPendingMessages(me.device);
    add(read.rows);
    if (read.rows.length > 0) await markDelivered(me.device, read.rows.map(({ id }) => id));
    more = read.more;
  }
}

/** Each message once, whatever has read it, in the order of their times. */
function merge(known: readonly Message[], more: readonly Message[]): readonly Message[] {
  const all = new Map([...known, ...more].map((message) => [message.logical_msg_id, message]));
  const time = ({ created_at }: Message): number => Date.parse(created_at ?? '');
  return [...all.values()].sort((a, b) => time(a) - time(b));
}
