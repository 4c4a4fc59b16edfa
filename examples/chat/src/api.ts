/** What the page asks the application for. */

export interface Person {
  readonly id: string;
  readonly username: string;
  readonly device: string;
}

/** A message as the application has it, and as the realtime service's read of state has it too. */
export interface Message {
  readonly logical_msg_id: string;
  readonly from_user_id: string | null;
  readonly ciphertext: string;
  /** ISO 8601. */
  readonly created_at: string | null;
}

export const fetchPeople = (): Promise<Person[]> => ask('people');

/** What was sent, and what has been delivered. */
export const fetchHistory = (user: string): Promise<Message[]> => ask(`messages?user=${user}`);

export const send = (from: string, to: string, text: string): Promise<Message[]> =>
  ask('messages', { from, to, text });

export const markDelivered = (device: string, ids: string[]): Promise<[]> =>
  ask('delivered', { device, ids });

async function ask<T>(path: string, body?: object): Promise<T> {
  const answer = await fetch(`/api/${path}`, body && { method: 'POST', body: JSON.stringify(body) });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}
