//! The leader's lock and row in PostgreSQL, without nodes: two candidates, one of which is stopped, a restart, a promotion,
//! a role without rights, and the schema before.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hushnet_devdb::Cluster;
use hushnet_realtime::protocol::DatabaseFault;
use hushnet_realtime::store::{self, Candidate, Leader, LeaderSession, Log};
use hushnet_testkit::database::UNSAFE_SETTINGS;
use hushnet_testkit::roles::SERVICE;
use uuid::Uuid;

use crate::recovery::{self, NAME, Pair};
use crate::support::{Database, execute, until};

/// A candidate, with its database.
fn candidate(database: &Database) -> (Candidate, Log) {
    let log = database.log(1);
    (Candidate::new(&log), log)
}

/// Tries until the lock is free.
async fn take(candidate: &mut Candidate) -> LeaderSession {
    let mut taken = None;
    until("the lock to be free", async || {
        // An attempt may fail while the database restarts.
        taken = candidate.try_take().await.ok().flatten();
        taken.is_some()
    })
    .await;
    taken.unwrap()
}

async fn named(log: &Log) -> Option<Leader> {
    log.leader().await.unwrap()
}

#[tokio::test]
async fn one_of_two_candidates_leads_and_each_term_has_the_next_number() {
    let database = Database::migrated().await;
    let ((mut first, log), (mut second, _)) = (candidate(&database), candidate(&database));
    assert_eq!(named(&log).await, None);
    let mut session = first.try_take().await.unwrap().unwrap();
    for _ in 0..3 {
        assert!(second.try_take().await.unwrap().is_none());
        assert_eq!(session.check().await.unwrap().run, None);
    }
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    // A run has all 64 bits.
    assert_eq!(session.lead(a, "a", u64::MAX - 1).await.unwrap(), 1);
    assert_eq!(session.check().await.unwrap().run, Some(u64::MAX - 1));
    let expected = Leader {
        term: 1,
        run: u64::MAX - 1,
        node: a,
        name: "a".to_owned(),
    };
    assert_eq!(named(&log).await, Some(expected));

    // The lock is free when this returns.
    session.release().await;
    let mut session = second.try_take().await.unwrap().unwrap();
    assert!(first.try_take().await.unwrap().is_none());
    assert_eq!(session.lead(b, "b", 7).await.unwrap(), 2);
    let leader = named(&log).await.unwrap();
    assert_eq!((leader.term, leader.run, leader.node), (2, 7, b));

    // And a moment after a holder was dropped.
    drop(session);
    let mut session = take(&mut first).await;
    assert_eq!(session.lead(a, "a", 8).await.unwrap(), 3);
}

/// Its kernel answers, and its connection stays.
#[tokio::test]
async fn a_holder_that_asks_nothing_loses_the_lock() {
    let database = Database::migrated().await;
    let ((mut first, _), (mut second, _)) = (candidate(&database), candidate(&database));
    let mut frozen = first.try_take().await.unwrap().unwrap();
    frozen.lead(Uuid::new_v4(), "frozen", 1).await.unwrap();
    let mut session = take(&mut second).await;
    assert_eq!(session.lead(Uuid::new_v4(), "other", 2).await.unwrap(), 2);
    frozen.check().await.unwrap_err();
    frozen.lead(Uuid::new_v4(), "frozen", 3).await.unwrap_err();
    assert_eq!(session.check().await.unwrap().run, Some(2));
}

/// A candidate that asks nothing keeps its session: it holds nothing.
#[tokio::test]
async fn only_the_holder_s_session_ends_when_it_asks_nothing() {
    let database = Database::migrated().await;
    let ((mut holder, _), (mut waiting, _)) = (candidate(&database), candidate(&database));
    let session = holder.try_take().await.unwrap().unwrap();
    assert!(waiting.try_take().await.unwrap().is_none());
    let mut admin = database.admin().await;
    let pid = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
               AND application_name = 'hushnet-realtime' AND query LIKE '%leader_lock%'";
    let pid: i32 = sqlx::query_scalar(pid).fetch_one(&mut admin).await.unwrap();
    let leaders = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND application_name = 'hushnet-realtime leader'";
    until("the holder's session to end", async || {
        let leaders = sqlx::query_scalar::<_, i64>(leaders);
        leaders.fetch_one(&mut admin).await.unwrap() == 0
    })
    .await;
    drop(session);
    let stays = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)");
    let stays: bool = stays.bind(pid).fetch_one(&mut admin).await.unwrap();
    assert!(stays);
    assert!(waiting.try_take().await.unwrap().is_some());
}

/// The row outlives the lock.
#[tokio::test]
async fn terms_go_on_after_a_restart_of_the_database() {
    let directory = directory();
    let home = directory.path().join("database");
    let cluster = Cluster::start_with(&home, &UNSAFE_SETTINGS).await.unwrap();
    let database = Database::made_in(&cluster, NAME).await;
    let ((mut first, log), (mut second, _)) = (candidate(&database), candidate(&database));
    let mut session = first.try_take().await.unwrap().unwrap();
    assert_eq!(session.lead(Uuid::new_v4(), "first", 1).await.unwrap(), 1);
    assert!(second.try_take().await.unwrap().is_none());

    cluster.stop().await.unwrap();
    session.check().await.unwrap_err();
    second.try_take().await.unwrap_err();
    let cluster = Cluster::start_with(&home, &UNSAFE_SETTINGS).await.unwrap();
    let mut session = take(&mut second).await;
    until("the database to answer", async || {
        log.leader().await.is_ok()
    })
    .await;
    assert_eq!(named(&log).await.unwrap().term, 1);
    assert_eq!(session.lead(Uuid::new_v4(), "second", 2).await.unwrap(), 2);
    cluster.stop().await.unwrap();
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap()
}

#[tokio::test]
async fn a_standby_elects_nobody_until_it_is_promoted() {
    let pair = Pair::start().await;
    let address = pair.directory.path().join("address");
    recovery::lead(&address, &pair.primary);
    let database = Database::of(&recovery::url(&address));
    let (mut candidate, log) = candidate(&database);
    let mut session = candidate.try_take().await.unwrap().unwrap();
    assert_eq!(session.lead(Uuid::new_v4(), "old", 1).await.unwrap(), 1);
    let epoch = session.check().await.unwrap().epoch;
    let standby = Database::of(&pair.standby.url(NAME));
    let mut admin = standby.admin().await;
    until("the standby to have the row", async || {
        let run = sqlx::query_scalar::<_, i64>("SELECT run FROM realtime.leader");
        run.fetch_optional(&mut admin).await.unwrap() == Some(1)
    })
    .await;
    session.release().await;

    // First what the address leads to is believed to be the primary still.
    recovery::lead(&address, &pair.standby);
    for _ in 0..2 {
        let error = candidate.try_take().await.unwrap_err();
        assert_eq!(store::fault(&error), DatabaseFault::ReadOnly, "{error}");
        log.distrust_address();
    }
    let lead = "SELECT realtime.lead(gen_random_uuid(), 'standby', 9)";
    let refused = sqlx::query(lead).execute(&mut admin).await.unwrap_err();
    assert_eq!(store::fault(&refused), DatabaseFault::ReadOnly, "{refused}");

    execute(&mut admin, "SELECT pg_promote()").await;
    log.distrust_address();
    let mut session = take(&mut candidate).await;
    let promoted = session.check().await.unwrap();
    assert_eq!(promoted.run, Some(1), "it names the run of the old primary");
    assert_eq!(promoted.epoch.history, epoch.history);
    assert!(promoted.epoch.timeline > epoch.timeline);
    assert_eq!(session.lead(Uuid::new_v4(), "new", 2).await.unwrap(), 2);
    pair.primary.stop().await.unwrap();
    pair.standby.stop().await.unwrap();
}

/// The service writes both tables through functions alone, and a role without its rights not at all.
#[tokio::test]
async fn a_role_without_rights_is_refused() {
    let database = Database::migrated().await;
    let mut admin = database.admin().await;
    let held = format!(
        "SELECT count(*) FROM pg_class WHERE oid IN ('realtime.leader'::regclass, 'realtime.nodes'::regclass)
         AND has_any_column_privilege('{SERVICE}', oid, 'SELECT, INSERT, UPDATE, REFERENCES')"
    );
    let held: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(held))
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(held, 0);

    let role = format!("t_{}", Uuid::new_v4().simple());
    execute(&mut admin, &format!("CREATE ROLE {role} LOGIN")).await;
    let (mut candidate, log) = candidate(&database.served_by(&role));
    for error in [
        candidate.try_take().await.unwrap_err(),
        log.leader().await.unwrap_err(),
        log.nodes().await.unwrap_err(),
        log.leave(Uuid::new_v4()).await.unwrap_err(),
    ] {
        assert!(store::is_forbidden(&error), "{error}");
    }
}

#[tokio::test]
async fn the_schema_before_has_no_nodes() {
    let database = Database::migrated_to(11).await;
    let (mut candidate, log) = candidate(&database);
    for error in [
        candidate.try_take().await.unwrap_err(),
        log.leader().await.unwrap_err(),
        log.nodes().await.unwrap_err(),
        log.leave(Uuid::new_v4()).await.unwrap_err(),
    ] {
        assert!(store::is_undefined_function(&error), "{error}");
    }
    database.up().await;
    assert!(candidate.try_take().await.unwrap().is_some());
    assert_eq!(named(&log).await, None);
}
