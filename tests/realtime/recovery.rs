//! The service on a database in recovery: it stays up, says so, and serves when the standby is promoted.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use hushnet_devdb::Cluster;
use hushnet_testkit::database::UNSAFE_SETTINGS;
use hushnet_testkit::standby;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use crate::support::{Database, Server, add_user, execute, insert_message, until};

pub const NAME: &str = "hushnet";
const REFUSED: &str = "hushnet_barriers_failed_total{cause=\"read_only\"}";

/// A primary with the service's schema, its standby, and the directory of both.
pub struct Pair {
    pub primary: Cluster,
    pub standby: Cluster,
    pub directory: TempDir,
}

impl Pair {
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let home = directory.path().join("primary");
        let primary = Cluster::start_with(&home, &UNSAFE_SETTINGS).await.unwrap();
        Database::made_in(&primary, NAME).await;
        let url = primary.url(NAME);
        let copy = directory.path().join("standby");
        let standby = standby::start(&home, &url, &copy, &UNSAFE_SETTINGS).await;
        Self {
            primary,
            standby,
            directory,
        }
    }
}

/// The directory of a cluster's socket.
fn socket(cluster: &Cluster) -> std::path::PathBuf {
    let options: PgConnectOptions = cluster.url(NAME).parse().unwrap();
    options.get_socket().unwrap().clone()
}

pub fn lead(address: &Path, cluster: &Cluster) {
    let _ = fs::remove_file(address);
    symlink(socket(cluster), address).unwrap();
}

/// The database behind this address.
pub fn url(address: &Path) -> String {
    let host = address.display();
    format!("postgres://hushnet@localhost:5432/{NAME}?host={host}")
}

async fn until_red(server: &Server) {
    until("/readyz says recovery", async || {
        let ready = server.get("/readyz").await;
        let body = ready.json();
        let reasons = body["reasons"].as_array().unwrap();
        ready.status == 503 && body["error"]["code"] == "recovery" && reasons.len() == 1
    })
    .await;
}

/// Promotes the standby. The service then serves without being told.
async fn promoted(server: &Server, standby: &Cluster) {
    let database = Database::of(&standby.url(NAME));
    execute(&mut database.admin().await, "SELECT pg_promote()").await;
    until("/readyz is green", async || {
        server.get("/readyz").await.json()["status"] == "ready"
    })
    .await;
    let db = database.pool().await;
    let bob = add_user(&db).await;
    let mut client = server.connect(bob.id).await;
    insert_message(&db, None, &bob, &bob).await;
    client.until_type("message").await;
}

#[tokio::test]
async fn a_start_on_a_standby_waits_for_its_promotion() {
    let pair = Pair::start().await;
    let database = Database::of(&pair.standby.url(NAME));
    let server = Server::start_unready(database, |config| config.barrier_interval_ms = 100);
    until_red(&server).await;
    server.until_metric(REFUSED, 20.0).await;
    until_red(&server).await;
    assert_eq!(server.get("/healthz").await.status, 200);
    pair.primary.stop().await.unwrap();
    promoted(&server, &pair.standby).await;
    pair.standby.stop().await.unwrap();
}

#[tokio::test]
async fn an_address_that_leads_to_a_standby_while_the_service_runs_is_noticed() {
    let pair = Pair::start().await;
    let address = pair.directory.path().join("address");
    lead(&address, &pair.primary);
    let database = Database::of(&url(&address));
    let server = Server::start_on(database, |config| config.barrier_interval_ms = 100).await;
    lead(&address, &pair.standby);
    pair.primary.stop().await.unwrap();
    until_red(&server).await;
    promoted(&server, &pair.standby).await;
    pair.standby.stop().await.unwrap();
}

/// A client that comes from a server on the promoted standby is not reset by one that is about to follow, which would
/// reset it again. A cursor alone proves no promotion, and is not waited with for ever.
#[tokio::test]
async fn a_cursor_of_the_promoted_standby_waits_on_a_server_that_follows_it() {
    let pair = Pair::start().await;
    let address = pair.directory.path().join("address");
    lead(&address, &pair.primary);
    let follows = Server::start_on(Database::of(&url(&address)), |config| {
        config.barrier_interval_ms = 100;
    });
    let follows = follows.await;
    let bob = add_user(&follows.db().await).await;
    let standby = Database::of(&pair.standby.url(NAME));
    let mut admin = standby.admin().await;
    until("the standby to have the user", async || {
        let users = sqlx::query_scalar("SELECT count(*) FROM users");
        let users: i64 = users.fetch_one(&mut admin).await.unwrap();
        users > 0
    })
    .await;
    execute(&mut admin, "SELECT pg_promote()").await;
    let promoted = Server::start_on(standby.clone(), |_| {}).await;
    let path = format!("/ws?user_id={}", bob.id);
    let hello = promoted.connect_v1(&path).await.next_json().await;
    let path = format!("{path}&since={}", hello["cursor"].as_str().unwrap());

    let mut stays = follows.connect_v1(&path).await;
    assert_eq!(stays.next_json().await["resumed"], false);
    let reset = stays.next_json().await;
    assert_eq!(reset["reason"], "history", "{reset}");

    let mut waits = follows.connect_v1(&path).await;
    lead(&address, &pair.standby);
    pair.primary.stop().await.unwrap();
    let hello = waits.next_json().await;
    assert_eq!(hello["resumed"], true, "{hello}");
    insert_message(&standby.pool().await, None, &bob, &bob).await;
    // A busy machine may be given cursors before it.
    let mut frame = waits.next_json().await;
    while frame["type"] == "cursor" || frame["type"] == "device" {
        frame = waits.next_json().await;
    }
    assert_eq!(frame["type"], "message", "{frame}");
    for server in [promoted, follows] {
        server.stopped_now().await;
    }
    pair.standby.stop().await.unwrap();
}
