//! The statements that read the log for one user's replay.

use super::log_row::{is_revocation, stored, stored_bytes, stored_if};
use super::reading::{newest_seen, read_log};

/// A statement that reads a page. `$1` is the reader's snapshot, `$2` the user, `$3` the last id, `$4` whether
/// revocations are wanted, `$5` the events of a page, `$6` its bytes. `$rows` is a query for id, the columns of `stored`,
/// `is_bound` and `is_wanted`.
macro_rules! read_page {
    ($gap:literal, $rows:expr) => {
        read_log!(
            "$1",
            concat!(
                ", total, is_bound, ",
                $gap,
                " AS gap, wanted
                 FROM reading LEFT JOIN LATERAL (
                     SELECT *, coalesce(sum(",
                stored_bytes!(),
                ") OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
                     FROM (SELECT *, count(*) OVER () AS total,
                                  count(*) FILTER (WHERE is_wanted) OVER () AS wanted FROM (",
                $rows,
                ") AS found ORDER BY id LIMIT $5) AS page
                 ) AS events ON bytes_before < $6
                 ORDER BY id"
            )
        )
    };
}

/// The user's events that are visible now and were not in the reader's snapshot. `$is_wanted` stands where PostgreSQL
/// looks up the kind only if it has to.
macro_rules! unseen {
    ($is_wanted:literal) => {
        concat!(
            unseen!($is_wanted, "xid >= pg_snapshot_xmax($1::text::pg_snapshot)"),
            " UNION ALL ",
            unseen!(
                $is_wanted,
                "xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))"
            )
        )
    };
    ($is_wanted:literal, $transactions:literal) => {
        concat!(
            "SELECT id, xid, ",
            stored!(),
            ", false AS is_bound, ",
            $is_wanted,
            " AS is_wanted
             FROM realtime.events
             WHERE retained AND known AND user_id = $2 AND ",
            $transactions,
            " AND id > $3 AND ($4 OR NOT ",
            is_revocation!(),
            ")"
        )
    };
}

/// The first page, and the count: of `$7` events at most. If there are more, they are not in order. `$8` names the kinds
/// that are wanted; null is all. `$9` are the sources that the service knows, `$10` those of the wanted kinds.
pub(super) const FIRST: &str = read_page!(
    "(SELECT CASE WHEN known THEN coalesce(
          (SELECT kind FROM realtime.events
           WHERE user_id IS NULL AND xid >= pg_snapshot_xmax($1::text::pg_snapshot) LIMIT 1),
          (SELECT kind FROM realtime.events
           WHERE user_id IS NULL
             AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot))) LIMIT 1)) END)",
    concat!(
        "SELECT * FROM (",
        unseen!(
            "CASE WHEN $8::text[] IS NULL THEN true WHEN source = ANY ($9::smallint[]) THEN source = ANY ($10::smallint[])
                  ELSE kind = ANY ($8) END"
        ),
        ") AS unseen LIMIT $7"
    )
);

/// A later page of few events, those visible in `$7`.
pub(super) const SORTED: &str = read_page!(
    "NULL::text",
    concat!(
        "SELECT * FROM (",
        unseen!("true"),
        ") AS unseen WHERE pg_visible_in_snapshot(xid, (SELECT $7::text::pg_snapshot))
          ORDER BY id LIMIT $5 + 1"
    )
);

/// A later page of the transactions `$7`. The index by user has each one's events of this user in the order of ids. The
/// rows are compared whole, so that the planner can take no other index: in one by transaction the events of others lie
/// between.
pub(super) const MERGED: &str = read_page!(
    "NULL::text",
    concat!(
        "SELECT own.*, false AS is_bound, true AS is_wanted
     FROM unnest($7::text::xid8[]) AS unseen (xid), LATERAL (
         SELECT id, ",
        stored!(),
        " FROM realtime.events
         WHERE retained AND known
           AND (user_id, events.xid, id) > ($2, unseen.xid, $3)
           AND (user_id, events.xid, id) <= ($2, unseen.xid, 9223372036854775807)
           AND ($4 OR NOT ",
        is_revocation!(),
        ")
         ORDER BY user_id, events.xid, id LIMIT $5 + 1
     ) AS own
     ORDER BY id LIMIT $5 + 1"
    )
);

/// A later page of the events visible in `$7`: the next `$9` rows of the log by id, from `$8` on, of which the last one
/// is returned in any case. The scan ends when the page is full.
pub(super) const SCANNED: &str = read_page!(
    "NULL::text",
    concat!(
        "SELECT id, ",
        stored_if!("is_unseen"),
        ", number = $9 AS is_bound, true AS is_wanted
     FROM (SELECT *, user_id = $2 AND ($4 OR NOT is_revocation)
                  AND NOT pg_visible_in_snapshot(xid, (SELECT $1::text::pg_snapshot))
                  AND pg_visible_in_snapshot(xid, (SELECT $7::text::pg_snapshot)) AS is_unseen
           FROM (SELECT *, row_number() OVER (ORDER BY id) AS number
                 FROM (SELECT id, xid, ",
        is_revocation!(),
        " AS is_revocation, ",
        stored!(),
        " FROM realtime.events
                       WHERE retained AND known AND id > greatest($3, $8) ORDER BY id LIMIT $9) AS next
           ) AS numbered
     ) AS scanned
     WHERE is_unseen OR number = $9
     ORDER BY id LIMIT $5 + 1"
    )
);

/// Why one way is better than another: the user's unseen transactions that are visible in `$3`, unless there are more
/// than `$4`, each found at once in the index; whether the log has an index by id; and an id that no unseen event of the
/// user is below.
pub(super) const SURVEY: &str = concat!(
    "WITH RECURSIVE begun (xid) AS (
         (SELECT xid FROM realtime.events
          WHERE (user_id, xid) >= ($2, pg_snapshot_xmax($1::text::pg_snapshot)) AND user_id <= $2
          ORDER BY user_id, xid LIMIT 1)
         UNION ALL
         SELECT (SELECT next.xid FROM realtime.events AS next
                 WHERE (user_id, next.xid) > ($2, begun.xid) AND user_id <= $2
                 ORDER BY user_id, next.xid LIMIT 1)
         FROM begun WHERE begun.xid IS NOT NULL
     ), running (xid, first_id) AS (
         SELECT upper, (SELECT id FROM realtime.events
                        WHERE (user_id, xid) >= ($2, upper) AND (user_id, xid) <= ($2, upper)
                        ORDER BY user_id, xid, id LIMIT 1)
         FROM pg_snapshot_xip($1::text::pg_snapshot) AS upper
     ), unseen (xid) AS (
         (SELECT xid FROM running WHERE first_id IS NOT NULL)
         UNION ALL
         (SELECT xid FROM begun WHERE xid IS NOT NULL LIMIT $4 + 1)
     )
     SELECT (SELECT CASE WHEN count(*) <= $4 THEN array_agg(xid)
                         FILTER (WHERE pg_visible_in_snapshot(xid, $3::text::pg_snapshot))::text END
             FROM unseen),
            to_regclass('realtime.events_id') IS NOT NULL,
            least((SELECT min(first_id) - 1 FROM running), ",
    newest_seen!("$1"),
    ")"
);
