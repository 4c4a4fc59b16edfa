// The application: it writes messages and reads them, and knows nothing of the realtime service.
//
// Whoever asks is believed to be who they say, as the demo users are; and the texts stand where HushNet's
// clients put what only the other device can read.

import { readFileSync } from 'node:fs';
import pg from 'pg';

const BODY_BYTES_MAX = 64 * 1024;
const HISTORY_MAX = 200;

/** Answers /api. */
export function application() {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL ?? privateDatabase(), max: 4 });
  // Of a connection that rests; the next query takes another one.
  pool.on('error', (error) => console.error(`database: ${error.message}`));
  const routes = {
    'GET /people': () => pool.query(PEOPLE),
    'GET /messages': ({ user }) => pool.query(HISTORY, [user, HISTORY_MAX]),
    'POST /messages': ({ from, to, text }) => pool.query(SEND, [from, to, text]),
    'POST /delivered': ({ device, ids }) => pool.query(DELIVERED, [device, ids]),
  };
  return async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    const route = routes[`${request.method} ${url.pathname}`];
    try {
      if (!route) return answer(response, 404, { error: 'there is no such route' });
      const asked = request.method === 'GET' ? Object.fromEntries(url.searchParams) : await body(request);
      answer(response, 200, (await route(asked)).rows);
    } catch (error) {
      answer(response, 500, { error: error.message });
    }
  };
}

const PEOPLE = `
  SELECT u.id, u.username,
         (SELECT d.id FROM devices d WHERE d.user_id = u.id ORDER BY d.created_at LIMIT 1) AS device
  FROM users u WHERE u.username IN ('alice', 'bob') ORDER BY u.username`;

// A message is one row for each device of its recipient.
const SEND = `
  WITH message AS (SELECT gen_random_uuid()::text AS id)
  INSERT INTO messages (logical_msg_id, chat_id, from_user_id, from_device_id, to_user_id, to_device_id,
                        header, ciphertext)
  SELECT message.id,
         (SELECT c.id FROM chats c
          WHERE c.user_a = least($1::uuid, $2::uuid) AND c.user_b = greatest($1, $2)),
         $1, (SELECT d.id FROM devices d WHERE d.user_id = $1 ORDER BY d.created_at LIMIT 1),
         $2, d.id, '{}', $3
  FROM message, devices d WHERE d.user_id = $2
  RETURNING logical_msg_id, from_user_id, ciphertext, created_at`;

const HISTORY = `
  SELECT DISTINCT ON (created_at, logical_msg_id) logical_msg_id, from_user_id, ciphertext, created_at
  FROM messages WHERE from_user_id = $1 OR (to_user_id = $1 AND delivered_at IS NOT NULL)
  ORDER BY created_at DESC, logical_msg_id LIMIT $2`;

const DELIVERED = `
  UPDATE messages SET delivered_at = now()
  WHERE to_device_id = $1 AND id = ANY ($2) AND delivered_at IS NULL`;

/** The database of `make run`, by what PostgreSQL says of itself. */
function privateDatabase() {
  const file = new URL('../../.hushnet/data/postmaster.pid', import.meta.url);
  try {
    const lines = readFileSync(file, 'utf8').split('\n');
    return `postgres://hushnet@localhost:${lines[3]}/hushnet?host=${encodeURIComponent(lines[4])}`;
  } catch {
    throw new Error('no service runs on .hushnet: say `make run` in another terminal, or set DATABASE_URL');
  }
}

async function body(request) {
  let text = '';
  for await (const chunk of request) {
    text += chunk;
    if (text.length > BODY_BYTES_MAX) throw new Error('the request is too long');
  }
  return JSON.parse(text);
}

function answer(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}
