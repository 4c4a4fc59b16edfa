/** What `hushnet-realtime types --typescript` writes of the source that server.mjs attaches, in short. */

import type { Message } from './api.ts';

export interface Events {
  chat_message: {
    type: 'chat_message';
    op: 'insert';
    user_id: string;
    id?: number;
    cursor?: string | null;
    key: { id: string };
    row: Message;
    truncated?: undefined;
  };
}
