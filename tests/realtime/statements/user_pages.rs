//! A read of one user's events, page by page.

use hushnet_realtime::protocol::{Signal, Snapshot};
use hushnet_realtime::store::{Log, Page, UserPages, may_pass};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::pages::{WITHOUT_INDEX, half_seen};
use crate::support::{Database, execute, soon};

/// Whose events [`half_seen`] writes.
const USER: Uuid = Uuid::nil();

/// Further transactions, events of the user in each, and a change of the schema: for each way in which pages are read.
const CASES: [(u32, u32, &str); 4] = [
    (0, 0, ""),
    (200, 10, ""),
    (200, 500, ""),
    (200, 500, WITHOUT_INDEX),
];

/// A log that a position has seen half of, in which the user has unseen events of this many further transactions.
struct Scene {
    database: Database,
    db: PgPool,
    from: Snapshot,
    log: Log,
    open: PgConnection,
}

impl Scene {
    async fn set(transactions: u32, events: u32, change: &str) -> Self {
        let database = Database::migrated().await;
        let db = database.owner_pool().await;
        execute(&mut database.connect().await, change).await;
        let (from, open) = half_seen(&database, &db, 2_500).await;
        let writing = format!(
            "DO $$ BEGIN
                 FOR turn IN 1..{transactions} LOOP
                     INSERT INTO realtime.events (id, user_id, kind, payload)
                     SELECT id, user_id, CASE WHEN number = 3 THEN 'revocation' ELSE 'device' END,
                            json_build_object('type', 'device', 'user_id', user_id, 'id', id)
                     FROM (SELECT nextval('realtime.events_id_seq') AS id, number,
                                  CASE WHEN number % 2 = 0 THEN gen_random_uuid() ELSE '{USER}' END AS user_id
                           FROM generate_series(1, 2 * {events}) AS number) AS next;
                     COMMIT;
                 END LOOP;
             END $$"
        );
        execute(&mut database.connect().await, &writing).await;
        let log = database.log(1);
        Self {
            database,
            db,
            from,
            log,
            open,
        }
    }

    fn read(&self) -> UserPages {
        self.log.read_user(USER, &self.from, false)
    }

    /// The ids of what is visible now and is not in the snapshot, in their order.
    async fn unseen(&self) -> Vec<i64> {
        sqlx::query_scalar(
            "SELECT id FROM realtime.events
             WHERE NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot) AND user_id = $2
               AND kind <> 'revocation' ORDER BY id",
        )
        .bind(self.from.to_string())
        .bind(USER)
        .fetch_all(&self.db)
        .await
        .unwrap()
    }
}

fn take(page: &Page, ids: &mut Vec<i64>) {
    ids.extend(page.signals.iter().filter_map(|signal| match signal {
        Signal::Event(event) => event.id,
        _ => None,
    }));
}

#[tokio::test]
async fn pages_bring_every_unseen_event_of_a_user_once_and_in_order() {
    for (transactions, events, change) in CASES {
        let mut scene = Scene::set(transactions, events, change).await;
        let expected = scene.unseen().await;
        let (mut pages, mut ids) = (scene.read(), Vec::new());
        let mut page = soon("a page", pages.next()).await.unwrap();
        assert!(page.reading.retained);
        assert_eq!(page.total, expected.len().min(100_000) as u64);
        take(&page, &mut ids);
        // What is committed during the read is not of its snapshot.
        execute(&mut scene.open, "COMMIT").await;
        while page.more {
            page = soon("a page", pages.next()).await.unwrap();
            take(&page, &mut ids);
        }
        assert!(
            ids == expected,
            "{} of {}, {transactions}",
            ids.len(),
            expected.len()
        );
        let all = scene.unseen().await;
        assert!(all.len() > expected.len());
    }
}

#[tokio::test]
async fn a_page_that_fails_is_read_again_from_where_the_read_had_come_to() {
    for (transactions, events, change) in CASES {
        let mut scene = Scene::set(transactions, events, change).await;
        // Its locks would keep the one below away.
        execute(&mut scene.open, "COMMIT").await;
        let expected = scene.unseen().await;
        let (mut pages, mut ids) = (scene.read(), Vec::new());
        for _ in 0..3 {
            let page = pages.next().await.unwrap();
            assert!(page.more);
            take(&page, &mut ids);
        }
        let mut holder = scene.database.connect().await;
        let lock = "BEGIN; LOCK TABLE realtime.events IN ACCESS EXCLUSIVE MODE";
        execute(&mut holder, lock).await;
        let error = soon("an error", pages.next()).await.unwrap_err();
        assert!(may_pass(&error), "{error}");
        execute(&mut holder, "ROLLBACK").await;
        loop {
            let page = soon("a page", pages.next()).await.unwrap();
            take(&page, &mut ids);
            if !page.more {
                break;
            }
        }
        assert!(
            ids == expected,
            "{} of {}, {transactions}",
            ids.len(),
            expected.len()
        );
    }
}

#[tokio::test]
async fn each_page_asks_again_whether_the_position_is_retained() {
    for (transactions, events, change) in CASES {
        let scene = Scene::set(transactions, events, change).await;
        let mut pages = scene.read();
        assert!(pages.next().await.unwrap().reading.retained);
        assert!(pages.next().await.unwrap().reading.retained);
        execute(
            &mut scene.database.connect().await,
            "UPDATE realtime.state SET dropped_to = pg_current_xact_id(), dropped_running = '{}'",
        )
        .await;
        let page = pages.next().await.unwrap();
        assert!(!page.reading.retained && page.signals.is_empty());
    }
}
