/** What the page asks the application for. */

export interface Person {
  readonly id: string;
  readonly username: string;
}

/** A message as the application has it, and as its event has it. */
export interface Message {
  readonly logical_msg_id: string;
  readonly from_user_id: string;
  readonly ciphertext: string;
  /** ISO 8601. */
  readonly created_at: string;
}

export const fetchPeople = (): Promise<Person[]> => ask('people');

/** All that the user has sent and was sent, and the cursor as of which that is. */
export const fetchHistory = (user: string): Promise<{ messages: Message[]; cursor: string | null }> =>
  ask(`messages?user=${user}`);

export const send = (from: string, to: string, text: string): Promise<unknown> =>
  ask('messages', { from, to, text });

async function ask<T>(path: string, body?: object): Promise<T> {
  const answer = await fetch(`/api/${path}`, body && { method: 'POST', body: JSON.stringify(body) });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}
