/** Both demo users side by side, or one of them: /?as=alice. */

import { RealtimeClient } from '@hushnet/realtime';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { fetchPeople } from './api.ts';
import type { Events } from './events.ts';
import { Pane } from './pane.tsx';
import './style.css';

const root = createRoot(document.getElementById('root') as HTMLElement);
try {
  const people = await fetchPeople();
  const as = new URLSearchParams(location.search).get('as');
  // A client lives as long as the page, and is therefore made by no component.
  const panes = people
    .filter(({ username }) => !as || username === as)
    .map((me) => ({
      me,
      other: people.find(({ id }) => id !== me.id) ?? me,
      client: new RealtimeClient<Events>({ url: '/', userId: me.id, kinds: ['chat_message'] }),
    }));
  root.render(
    <StrictMode>
      <main>
        {panes.map((pane) => (
          <Pane key={pane.me.id} {...pane} />
        ))}
        {panes.length === 0 && <p>There is no user {as}.</p>}
      </main>
    </StrictMode>,
  );
} catch (error) {
  root.render(<p role="alert">{String(error)}</p>);
}
