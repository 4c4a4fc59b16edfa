import { RealtimeClient } from '@hushnet/realtime';
import { useEvents, useRealtime } from '@hushnet/realtime/react';

const client = new RealtimeClient({ url: '/realtime', userId: 'bob' });

export function App() {
  const { status } = useRealtime(client);
  return <p>{`${status} ${useEvents(client, 'message').length}`}</p>;
}
