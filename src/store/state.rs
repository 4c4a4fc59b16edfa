//! The reads of state that HushNet's client makes: a device's pending messages and sessions, and a
//! user's devices, each with the cursor after which the later events follow.
//!
//! State and cursor are read by one SQL statement. A statement has one snapshot, so no transaction is
//! needed: the state is as of the cursor, each later change comes as an event after the cursor, and no
//! change is in both. A cursor is handed out when what it sees is on disk. This holds for messages and devices, whose changes make events. A row of
//! `pending_sessions` makes no event; the session that it becomes does.
//!
//! Never changes state: a read that marked messages as delivered, as HushNet's own does, would lose
//! them when the answer does not arrive. A client that has stored them tells HushNet's server.
//! Never returns a push token, which concerns only the device and the server.
//!
//! Fails with the database's own error, or after [`READ_TIMEOUT`]; nothing retries.

use std::time::Duration;

use sqlx::PgPool;
use uuid::Uuid;

use super::deadline::{STATEMENT_DEADLINE, within_deadline};
use super::known::Known;
use super::log_state::flush;

/// Rows in one answer: the oldest. Beyond it [`State::more`] is set.
pub const PENDING_ROWS_MAX: u32 = 2_000;
/// The rows of one answer, in bytes of JSON: the oldest that fit. One row is returned in any case, or a
/// longer row would block those behind it. Beyond the bound [`State::more`] is set.
pub const PENDING_BYTES_MAX: u32 = 1 << 20;
/// How long one read may take, including the wait for a connection. Clients give up before.
pub const READ_TIMEOUT: Duration = STATEMENT_DEADLINE;

/// State, and the position in the stream of events at which it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The text of the snapshot's cursor; `None` in a database that has no log of events.
    pub cursor: Option<String>,
    /// A JSON array of objects, oldest first; `[]` when there is nothing.
    pub body: String,
    /// Whether newer rows were left out. No event comes for them. The client acknowledges the rows that
    /// it has, so that they are no longer pending, and reads again.
    pub more: bool,
}

/// One read, as a statement for each schema that a database may have, the newest first: the present log; the log before
/// migration 6, and before migration 5; no log.
struct Read([&'static str; 4]);

/// The statement around a query of `json` and `place`, the rows' order from 1 on. `$1` is the rows' owner, `$2` and `$3`
/// are the bounds in rows and in bytes.
macro_rules! statement {
    ($cursor:literal, $rows:expr) => {
        concat!(
            "WITH found AS MATERIALIZED (",
            $rows,
            "), measured AS (
                 SELECT json, place, sum(octet_length(json::text)) OVER (ORDER BY place) AS bytes FROM found
             ), bounded AS (
                 SELECT json, place, place = 1 OR place <= $2 AND bytes <= $3 AS fits FROM measured
             )
             SELECT ",
            $cursor,
            ",      coalesce(json_agg(json ORDER BY place) FILTER (WHERE fits), '[]')::text,
                    coalesce(bool_or(NOT fits), false)
             FROM bounded"
        )
    };
}

/// A query of the application's table, for a role that may read it.
macro_rules! of_table {
    ($rows:literal) => {
        concat!(
            "SELECT row_to_json(oldest) AS json, row_number() OVER (ORDER BY created_at, id) AS place
             FROM (",
            $rows,
            " ORDER BY created_at, id LIMIT $2 + 1) AS oldest"
        )
    };
}

/// `$function` returns the same rows as the query, to a role that may not read the table. It is STABLE: its snapshot is
/// that of the statement, and so of the cursor.
macro_rules! read {
    ($function:literal, $rows:literal) => {
        Read([
            statement!(
                "realtime.unflushed_cursor(), realtime.is_flushed(pg_current_wal_insert_lsn())",
                concat!(
                    "SELECT json, place FROM realtime.",
                    $function,
                    "($1, $2 + 1) WITH ORDINALITY AS oldest (json, place)"
                )
            ),
            statement!(
                "realtime.unflushed_cursor(), realtime.is_flushed(pg_current_wal_insert_lsn())",
                of_table!($rows)
            ),
            statement!("realtime.cursor(), true", of_table!($rows)),
            statement!("NULL::text, true", of_table!($rows)),
        ])
    };
}

const MESSAGES: Read = read!(
    "pending_messages",
    "SELECT id, logical_msg_id, chat_id, from_user_id, from_device_id, to_user_id, to_device_id,
            header, ciphertext, created_at
     FROM public.messages WHERE to_device_id = $1 AND delivered_at IS NULL"
);

const HANDSHAKES: Read = read!(
    "pending_handshakes",
    "SELECT id, sender_device_id, recipient_device_id, ephemeral_pubkey, sender_prekey_pub, otpk_used,
            ciphertext, state, created_at
     FROM public.pending_sessions WHERE recipient_device_id = $1 AND state = 'initiated'"
);

/// Without `last_seen`: a change of it alone makes no event, so a client that follows the events would
/// keep an old value.
const DEVICES: Read = read!(
    "devices_of",
    "SELECT id, user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub, signed_prekey_sig,
            one_time_prekeys, device_label, created_at
     FROM public.devices WHERE user_id = $1"
);

/// The messages to this device that are not marked as delivered.
pub async fn messages(pool: &PgPool, device_id: Uuid) -> Result<State, sqlx::Error> {
    MESSAGES.of(pool, device_id).await
}

/// The handshakes that this device has not answered.
pub async fn sessions(pool: &PgPool, device_id: Uuid) -> Result<State, sqlx::Error> {
    HANDSHAKES.of(pool, device_id).await
}

/// The user's devices with their public keys.
pub async fn devices(pool: &PgPool, user_id: Uuid) -> Result<State, sqlx::Error> {
    DEVICES.of(pool, user_id).await
}

impl Read {
    /// One of the application's tables may be missing. Then every statement fails, and the error names the table.
    async fn of(&self, pool: &PgPool, owner: Uuid) -> Result<State, sqlx::Error> {
        let read = async {
            // The newest first each time: without the log, the last one goes on to be taken when the log has come.
            let known = Known::default();
            let mut attempts = known.attempts(&self.0);
            while let Some(statement) = attempts.next() {
                let answer = query(pool, statement, owner).await;
                if let Some(answer) = attempts.take(answer) {
                    return answer;
                }
            }
            Err(attempts.refused())
        };
        within_deadline(read).await
    }
}

async fn query(pool: &PgPool, statement: &'static str, owner: Uuid) -> Result<State, sqlx::Error> {
    let (cursor, flushed, body, more): (_, bool, _, _) = sqlx::query_as(statement)
        .bind(owner)
        .bind(i64::from(PENDING_ROWS_MAX))
        .bind(i64::from(PENDING_BYTES_MAX))
        .fetch_one(pool)
        .await?;
    if !flushed {
        flush(pool).await?;
    }
    Ok(State { cursor, body, more })
}
