'use client';

import { RealtimeClient, indexedDbStore, localStorageStore } from '@hushnet/realtime';
import { useEvents, useRealtime } from '@hushnet/realtime/react';

const client = new RealtimeClient({ url: '/realtime', userId: 'bob', cursorStore: indexedDbStore('bob') });
export const other = new RealtimeClient({ url: '/realtime', userId: 'eve', cursorStore: localStorageStore('eve') });

export function Live() {
  const { status } = useRealtime(client);
  const messages = useEvents(client, 'message');
  return <p>{`page: ${status}, ${messages.length} messages`}</p>;
}
