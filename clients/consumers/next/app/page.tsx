// A server component. It makes a client, as a module does that pages and server share: there is no `location` here.

import { RealtimeClient } from '@hushnet/realtime';
import { Live } from './live';

const client = new RealtimeClient({ url: '/realtime', userId: 'bob' });

export default function Page() {
  return (
    <main>
      <p>{`server: ${client.state.status}`}</p>
      <Live />
    </main>
  );
}
