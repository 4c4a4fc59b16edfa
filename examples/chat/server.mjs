// The application: it writes messages and reads them. Of the realtime service it knows two functions in the database: the
// one that makes rows events, and the one that says as of which cursor it has read.
//
// Whoever asks is believed to be who they say, as the demo users are; and the texts stand where HushNet's
// clients put what only the other device can read.

import { readFileSync } from 'node:fs';
import pg from 'pg';

const BODY_BYTES_MAX = 64 * 1024;
const HISTORY_MAX = 10_000;

/** Answers /api. */
export function application() {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL ?? privateDatabase(), max: 4 });
  // Of a connection that rests; the next query takes another one.
  pool.on('error', (error) => console.error(`database: ${error.message}`));
  const rows = async (...query) => (await pool.query(...query)).rows;
  const routes = {
    'GET /people': () => rows(PEOPLE),
    'GET /messages': ({ user }) => history(pool, user),
    'POST /messages': ({ from, to, text }) => rows(SEND, [from, to, text]),
  };
  let attached;
  return async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    const route = routes[`${request.method} ${url.pathname}`];
    try {
      if (!route) return answer(response, 404, { error: 'there is no such route' });
      attached ??= attach(pool).catch((error) => {
        attached = undefined;
        throw error;
      });
      await attached;
      const asked = request.method === 'GET' ? Object.fromEntries(url.searchParams) : await body(request);
      answer(response, 200, await route(asked));
    } catch (error) {
      answer(response, 500, { error: error.message });
    }
  };
}

/** Makes messages events with their text, of sender and recipient: as `hushnet-realtime attach messages` does. */
async function attach(pool) {
  await pool.query(`
    SELECT realtime.add_source('chat_message', 'messages', 'SELECT unnest(ARRAY[NEW.from_user_id, NEW.to_user_id])',
                               operations => '{insert}',
                               fields => '{logical_msg_id,from_user_id,ciphertext,created_at}')
    WHERE NOT EXISTS (SELECT FROM realtime.sources WHERE kind = 'chat_message' AND retired_at IS NULL)`);
}

/** The newest messages, and the cursor of the same snapshot: the events after it are those that are not in it. */
async function history(pool, user) {
  const connection = await pool.connect();
  try {
    await connection.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    const { cursor } = (await connection.query('SELECT realtime.cursor()::text AS cursor')).rows[0];
    const { rows: messages } = await connection.query(HISTORY, [user, HISTORY_MAX]);
    await connection.query('COMMIT');
    connection.release();
    return { messages, cursor };
  } catch (error) {
    // A connection in which something failed is not used again.
    connection.release(error);
    throw error;
  }
}

const PEOPLE = "SELECT id, username FROM users WHERE username IN ('alice', 'bob') ORDER BY username";

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
  FROM message, devices d WHERE d.user_id = $2`;

const HISTORY = `
  SELECT DISTINCT ON (created_at, logical_msg_id) logical_msg_id, from_user_id, ciphertext, created_at
  FROM messages WHERE from_user_id = $1 OR to_user_id = $1
  ORDER BY created_at DESC, logical_msg_id LIMIT $2`;

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
