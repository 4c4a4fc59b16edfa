//! TLS to the database: what each `sslmode` takes, against a PostgreSQL with TLS.

use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::store::migrate;
use sqlx::{ConnectOptions, Connection};

use crate::support::{Database, Server, TlsDatabase, add_user, insert_message, soon, until};

/// Connects, and says whether with TLS; `None` if it cannot.
async fn connect(url: &str) -> Option<bool> {
    let url: DatabaseUrl = url.parse().unwrap();
    let mut connection = soon("an answer", url.options().connect()).await.ok()?;
    let with_tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let with_tls = sqlx::query_scalar(with_tls).fetch_one(&mut connection);
    let with_tls = with_tls.await.unwrap();
    connection.close().await.unwrap();
    Some(with_tls)
}

#[tokio::test]
async fn each_sslmode_takes_what_the_documentation_says() {
    let database = TlsDatabase::start().await;
    let (right, wrong) = ("localhost", "127.0.0.1");
    let root = format!("&sslrootcert={}", database.root().display());
    let other = format!("&sslrootcert={}", database.other_root().display());
    let connected =
        async |host: &str, parameters: &str| connect(&database.url(host, parameters)).await;
    for (mode, of_root, of_other, of_wrong_host) in [
        ("disable", Some(false), Some(false), Some(false)),
        ("allow", Some(true), Some(true), Some(true)),
        ("prefer", Some(true), Some(true), Some(true)),
        ("require", Some(true), None, Some(true)),
        ("verify-ca", Some(true), None, Some(true)),
        ("verify-full", Some(true), None, None),
    ] {
        let with = |root: &str| format!("sslmode={mode}{root}");
        assert_eq!(connected(right, &with(&root)).await, of_root, "{mode}");
        assert_eq!(connected(right, &with(&other)).await, of_other, "{mode}");
        let of_wrong = connected(wrong, &with(&root)).await;
        assert_eq!(of_wrong, of_wrong_host, "{mode}");
    }
    // Without a root certificate those that browsers trust count.
    assert_eq!(connected(right, "sslmode=require").await, Some(true));
    assert_eq!(connected(right, "sslmode=verify-full").await, None);
    assert_eq!(connected(right, "sslrootcert=system").await, None);

    database.serve_tls(false).await;
    for (mode, without_tls) in [
        ("disable", Some(false)),
        ("allow", Some(false)),
        ("prefer", Some(false)),
        ("require", None),
        ("verify-ca", None),
        ("verify-full", None),
    ] {
        let connected = connected(right, &format!("sslmode={mode}{root}")).await;
        assert_eq!(connected, without_tls, "{mode}");
    }
}

#[tokio::test]
async fn the_service_runs_over_tls_and_says_why_it_trusts_no_other_server() {
    let database = TlsDatabase::start().await;
    let verified = format!(
        "sslmode=verify-full&sslrootcert={}",
        database.root().display()
    );
    let url = database.url("localhost", &verified);
    migrate::up(&url.parse().unwrap()).await.unwrap();
    let server = Server::start_on(Database::of_one_role(&url), |_| {}).await;
    let db = server.db().await;
    let bob = add_user(&db).await;
    let mut client = server.connect(bob.id).await;
    insert_message(&db, None, &bob, &bob).await;
    client.until_type("message").await;
    let without = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
                   WHERE application_name = 'hushnet-realtime' AND NOT ssl";
    let without = sqlx::query_scalar::<_, i64>(without);
    let mut inner = database.connect().await;
    assert_eq!(without.fetch_one(&mut inner).await.unwrap(), 0);

    let other = format!(
        "sslmode=verify-full&sslrootcert={}",
        database.other_root().display()
    );
    for (host, parameters, said) in [
        ("127.0.0.1", &verified, "certificate is of another host"),
        (
            "localhost",
            &other,
            "certificate is of an unknown authority",
        ),
    ] {
        let url = database.url(host, parameters);
        let server = Server::start_unready(Database::of_one_role(&url), |_| {});
        until("/readyz says why", async || {
            let ready = server.get("/readyz").await;
            let is_said = ready.status == 503 && ready.body.contains(said);
            assert!(!ready.body.contains("s3cret"), "{}", ready.body);
            is_said
        })
        .await;
    }
}
