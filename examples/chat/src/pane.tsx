/** One user's side of the chat. */

import type { RealtimeClient } from '@hushnet/realtime';
import { useRealtime, useSynced } from '@hushnet/realtime/react';
import { type FormEvent, useEffect, useMemo, useRef, useState } from 'react';
import { type Person, send } from './api.ts';
import type { Events } from './events.ts';
import { inOrder, messagesOf } from './messages.ts';

interface Props {
  readonly client: RealtimeClient<Events>;
  readonly me: Person;
  readonly other: Person;
}

export function Pane({ client, me, other }: Props) {
  const synced = useSynced(client, messagesOf(me.id));
  const { status, blocked } = useRealtime(client, { connect: false });
  const messages = useMemo(() => inOrder(synced ?? new Map()), [synced]);
  const [text, setText] = useState('');
  const [refusal, setRefusal] = useState<string>();
  const end = useRef<HTMLLIElement>(null);
  useEffect(() => {
    end.current?.scrollIntoView({ block: 'nearest' });
  }, [messages]);

  const submit = (event: FormEvent): void => {
    event.preventDefault();
    const said = text.trim();
    if (!said) return;
    send(me.id, other.id, said).then(
      () => {
        // The event shows it, here and in the user's other tabs.
        setText('');
        setRefusal(undefined);
      },
      (cause: unknown) => setRefusal(String(cause)),
    );
  };

  return (
    <section aria-label={me.username}>
      <header>
        <h2>{me.username}</h2>
        <span role="status" data-status={status}>
          {status}
        </span>
      </header>
      <ol aria-live="polite">
        {messages.map((message) => (
          <li key={message.logical_msg_id} className={message.from_user_id === me.id ? 'mine' : 'theirs'}>
            {message.ciphertext}
          </li>
        ))}
        <li ref={end} aria-hidden="true" className="end" />
      </ol>
      {refusal && <p role="alert">{refusal}</p>}
      {blocked && <p role="alert">The messages cannot be read. Trying again.</p>}
      <form onSubmit={submit}>
        <input
          aria-label={`Message to ${other.username}`}
          placeholder={`Message to ${other.username}`}
          value={text}
          onChange={(event) => setText(event.target.value)}
        />
        <button>Send</button>
      </form>
    </section>
  );
}
