/** The messages of one user: the history, and then each event. */

import type { RealtimeEvent, SyncOptions } from '@hushnet/realtime';
import { type Message, fetchHistory } from './api.ts';
import type { Events } from './events.ts';

/** By the message's id, since a message has a row for each device. */
export type Messages = ReadonlyMap<string, Message>;

/** The history as of a cursor, from which the events go on: none is missing and none is counted twice. */
export const messagesOf = (user: string): SyncOptions<Messages, Events> => ({
  async load() {
    const { messages, cursor } = await fetchHistory(user);
    return { state: new Map(messages.map((message) => [message.logical_msg_id, message])), cursor };
  },
  apply: (messages, event: RealtimeEvent<Events>) =>
    event.type === 'chat_message' ? new Map(messages).set(event.row.logical_msg_id, event.row) : messages,
});

/** Oldest first. */
export const inOrder = (messages: Messages): Message[] =>
  [...messages.values()].sort((a, b) => Date.parse(a.created_at) - Date.parse(b.created_at));
