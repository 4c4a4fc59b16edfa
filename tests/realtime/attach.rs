//! `attach`, `detach` and `sources`, as an operator calls them.

use hushnet_testkit::roles::{OWNER, SERVICE};
use hushnet_testkit::wait::until;
use serde_json::{Value, json};

use crate::cli::{self, outcome};
use crate::support::{Client, Database, Server, execute};

mod ddl;
mod file;

const SHOP: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, customer bigint, seller bigint, status text, secret text);
    CREATE TABLE watchers (of_order int, watcher bigint);
    INSERT INTO watchers VALUES (1, 42), (1, 44), (1, NULL)";

/// Exit code, standard output and standard error.
async fn program(database: &Database, arguments: &[&str]) -> (i32, String, String) {
    outcome(cli::program(arguments).env("DATABASE_URL", database.owner_url())).await
}

async fn shop() -> Database {
    let database = Database::empty().await;
    database.up().await;
    execute(&mut database.connect().await, SHOP).await;
    database
}

/// What is done, with all that can be said.
const ATTACH: [&str; 14] = [
    "attach",
    "orders",
    "--kind",
    "order",
    "--user",
    "customer",
    "--user",
    "seller",
    "--users",
    "SELECT watcher FROM public.watchers WHERE of_order = NEW.id -- and who watches",
    "--fields",
    "id,status",
    "--when",
    "NEW.status <> 'draft'",
];

async fn next_event(client: &mut Client) -> Value {
    loop {
        let frame = client.next_json().await;
        if frame["type"] == "order" {
            return frame;
        }
    }
}

#[tokio::test]
async fn a_table_is_attached_seen_and_detached() {
    let database = shop().await;
    let (code, statement, error) =
        program(&database, &[&ATTACH[..], &["--dry-run"]].concat()).await;
    assert_eq!(code, 0, "{error}");
    for part in [
        "SELECT realtime.add_source('order', 'public.orders', ",
        "CREATE TRIGGER realtime_source_16_insert AFTER INSERT ON public.orders",
        "-- realtime.source_16():",
    ] {
        assert!(statement.contains(part), "{statement}");
    }
    let nothing = program(&database, &["sources"]).await;
    assert_eq!(nothing, (0, String::new(), String::new()));

    let (code, attached, error) = program(&database, &ATTACH).await;
    assert_eq!(code, 0, "{error}");
    assert!(
        attached.ends_with("\n-- order: events of public.orders\n"),
        "{attached}"
    );
    let server = Server::start_on(database.clone(), |_| {}).await;
    let mut clients = Vec::new();
    for user in [42, 43, 44, 45] {
        let mut client = server.connect_v1(&format!("/ws?user_id={user}")).await;
        assert_eq!(client.next_json().await["type"], "hello");
        clients.push((user, client));
    }
    let mut application = database.connect().await;
    execute(
        &mut application,
        "INSERT INTO orders VALUES (1, 42, 43, 'draft', 'x'), (2, 45, NULL, 'draft', 'x');
         UPDATE orders SET status = 'new' WHERE id = 1; UPDATE orders SET status = 'paid'",
    )
    .await;
    for (user, client) in &mut clients {
        let expected: &[(&str, i32, &str)] = match user {
            45 => &[("insert", 2, "paid")],
            _ => &[("insert", 1, "new"), ("update", 1, "paid")],
        };
        for (op, id, status) in expected {
            let mut event = next_event(client).await;
            assert!(event.as_object_mut().unwrap().remove("id").is_some());
            event.as_object_mut().unwrap().remove("cursor");
            let row = json!({"id": id, "status": status});
            let expected = json!({"type": "order", "op": op, "user_id": user.to_string(), "key": {"id": id}, "row": row});
            assert_eq!(event, expected);
        }
    }
    let (_, listed, _) = program(&database, &["sources"]).await;
    let expected = "order: insert, update, delete of public.orders
  users: SELECT NEW.\"customer\" UNION ALL SELECT NEW.\"seller\" UNION ALL (SELECT watcher FROM public.watchers WHERE of_order = NEW.id -- and who watches
)
  key: id
  fields: id, status
  when: NEW.status <> 'draft'
  lately: ";
    assert!(listed.starts_with(expected), "{listed}");
    let (code, detached, error) = program(&database, &["detach", "order"]).await;
    assert_eq!((code, &*error), (0, ""));
    assert_eq!(detached, "order: no more events of public.orders\n");
    execute(&mut application, "DELETE FROM orders").await;
    let deleted = "SELECT count(*) FROM realtime.log WHERE op = 'd'";
    let deleted: i64 = sqlx::query_scalar(deleted)
        .fetch_one(&mut application)
        .await
        .unwrap();
    assert_eq!(deleted, 0);
}

#[tokio::test]
async fn the_statement_that_is_printed_does_the_same() {
    let (database, other) = (shop().await, shop().await);
    let (_, statement, _) = program(&database, &[&ATTACH[..], &["--dry-run"]].concat()).await;
    let end = statement.find("CREATE TRIGGER").unwrap();
    execute(&mut other.connect().await, &statement[..end]).await;
    program(&database, &ATTACH).await;
    let listed = program(&database, &["sources"]).await;
    assert!(listed.1.starts_with("order: "), "{listed:?}");
    assert_eq!(program(&other, &["sources"]).await, listed);
}

/// What is called, and what the answer has.
const MISTAKES: [(&[&str], &str); 9] = [
    (&["attach", "orders"], "--user <COLUMN>"),
    (
        &["attach", "order", "--user", "customer"],
        "there is no table order",
    ),
    (
        &["attach", "orders", "--user", "buyer"],
        "the audience 'buyer' is neither a column of public.orders nor a query",
    ),
    (
        &["attach", "orders", "--user", "customer", "--user", "buyer"],
        "column new.buyer does not exist",
    ),
    (&["attach", "orders", "--users", "SELECT NEW.status"], ""),
    (
        &[
            "attach", "orders", "--user", "customer", "--fields", "price",
        ],
        "public.orders has no column price",
    ),
    (
        &["attach", "orders", "--user", "customer", "--on", "truncate"],
        "invalid value 'truncate'",
    ),
    (
        &["attach", "orders", "--user", "customer", "--kind", "hello"],
        "the protocol uses the name itself",
    ),
    (
        &["detach", "order"],
        "no source of the kind order is in force",
    ),
];

#[tokio::test]
async fn a_mistake_is_named_and_changes_nothing() {
    let database = shop().await;
    // The first source has fixed the users' type.
    program(
        &database,
        &["attach", "orders", "--user", "customer", "--kind", "first"],
    )
    .await;
    let before = program(&database, &["sources"]).await;
    assert!(before.1.starts_with("first: "), "{before:?}");
    for (arguments, said) in MISTAKES {
        let said = if said.is_empty() {
            "those of this database are of type bigint"
        } else {
            said
        };
        let (code, output, error) = program(&database, arguments).await;
        assert_eq!((code, &*output), (2, ""), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    assert_eq!(program(&database, &["sources"]).await, before);
    let bare = Database::empty().await;
    for arguments in [
        &["attach", "orders", "--user", "customer"][..],
        &["sources"],
    ] {
        let (code, _, error) = program(&bare, arguments).await;
        assert_eq!(code, 1);
        assert!(
            error.contains("run `hushnet-realtime migrate up` first"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn who_has_the_table_is_named_and_writers_go_on() {
    let database = shop().await;
    let mut holder = database.connect().await;
    execute(
        &mut holder,
        "SET application_name = 'nightly'; BEGIN; INSERT INTO orders VALUES (1, 42)",
    )
    .await;
    let attach = ["attach", "orders", "--user", "customer", "--lock-wait", "1"];
    let (code, _, error) = program(&database, &attach).await;
    assert_eq!(code, 1);
    assert!(
        error.contains("public.orders is in use by others") && error.contains("(nightly)"),
        "{error}"
    );
    execute(&mut holder, "COMMIT").await;
    assert_eq!(program(&database, &attach).await.0, 0);
}

/// A trigger of another table that is not in its place is put there as well, and that table is waited for in the same way.
#[tokio::test]
async fn who_has_a_table_whose_trigger_is_missing_is_named_too() {
    let database = shop().await;
    let watchers = [
        "attach", "watchers", "--key", "of_order", "--user", "watcher",
    ];
    assert_eq!(program(&database, &watchers).await.0, 0);
    let mut holder = database.connect().await;
    execute(&mut holder, "DROP TRIGGER realtime_truncate ON watchers").await;
    execute(
        &mut holder,
        "SET application_name = 'nightly'; BEGIN; INSERT INTO watchers VALUES (1, 42)",
    )
    .await;
    for arguments in [
        &["attach", "orders", "--user", "customer", "--lock-wait", "1"][..],
        &["detach", "watchers", "--lock-wait", "1"],
    ] {
        let (code, _, error) = program(&database, arguments).await;
        assert_eq!(code, 1, "{arguments:?}");
        assert!(
            error.contains("public.watchers") && error.contains("(nightly)"),
            "{error}"
        );
        assert!(error.contains("in use by others for 1 s"), "{error}");
    }
    execute(&mut holder, "COMMIT").await;
    let attach = ["attach", "orders", "--user", "customer"];
    assert_eq!(program(&database, &attach).await.0, 0);
    let (_, listed, _) = program(&database, &["sources"]).await;
    assert!(listed.contains("of public.watchers"), "{listed}");
}

/// As is the role of a service.
#[tokio::test]
async fn who_owns_neither_the_table_nor_the_schema_is_refused() {
    let database = shop().await;
    let attach = ["attach", "orders", "--user", "customer"];
    let mut command = cli::program(&attach);
    let url = database.owner_url().replacen(OWNER, SERVICE, 1);
    assert_ne!(url, database.owner_url());
    let (code, _, error) = outcome(command.env("DATABASE_URL", url)).await;
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("permission denied"), "{error}");
    assert_eq!(program(&database, &["sources"]).await.1, "");
}

/// What a query costs is seen before each row pays for it, and what the events cost is seen afterwards.
#[tokio::test]
async fn the_plan_of_the_query_and_what_the_events_are_is_shown() {
    let database = shop().await;
    let (code, shown, error) = program(&database, &[&ATTACH[..], &["--changed"]].concat()).await;
    assert_eq!(code, 0, "{error}");
    for part in [
        ", changed => true);",
        "--   ",
        "Scan on watchers",
        "-- order: events of public.orders",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let mut application = database.connect().await;
    let insert = "INSERT INTO orders SELECT n, 42, NULL, 'new' FROM generate_series(1, 10) AS n";
    execute(&mut application, insert).await;
    let (_, listed, _) = program(&database, &["sources"]).await;
    for part in [
        "order: insert, update, delete of public.orders\n",
        "\n  key: id\n",
        "\n  fields: id, status, of an update what has changed\n",
        " events/s, ",
        " bytes each in the log\n",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
}

/// A subscription's changes fire triggers of rows. What it copies at its beginning is no event.
#[tokio::test]
async fn a_table_that_a_subscription_feeds_is_attached_as_a_replica() {
    let (publisher, database) = Database::two_for_replication().await;
    database.up().await;
    let table = "CREATE TABLE orders (id int PRIMARY KEY, customer bigint, status text)";
    let mut theirs = publisher.admin().await;
    execute(
        &mut theirs,
        &format!("{table}; INSERT INTO orders VALUES (1, 42, 'old'); CREATE PUBLICATION shop FOR TABLE orders"),
    )
    .await;
    let slot = "SELECT pg_create_logical_replication_slot('shop', 'pgoutput')";
    execute(&mut theirs, slot).await;
    let mut owner = database.connect().await;
    execute(&mut owner, table).await;
    let mut admin = database.admin().await;
    let url = publisher.admin_url();
    let options = url.options();
    let subscribe = format!(
        "CREATE SUBSCRIPTION shop CONNECTION 'host={} port={} dbname=publisher user={}' PUBLICATION shop
             WITH (create_slot = false, slot_name = 'shop', enabled = false)",
        options.get_socket().unwrap().display(),
        options.get_port(),
        options.get_username()
    );
    execute(&mut admin, &subscribe).await;
    let attach = [
        "attach", "orders", "--kind", "order", "--user", "customer", "--fields", "status",
    ];
    let replica = [&attach[..], &["--replica"]].concat();
    let (code, _, error) = program(&database, &attach).await;
    assert_eq!(code, 2);
    assert!(error.contains("fed by a subscription"), "{error}");
    let (code, _, error) = program(&database, &replica).await;
    assert_eq!(code, 2);
    assert!(error.contains("initial copy of public.orders"), "{error}");
    execute(&mut admin, "ALTER SUBSCRIPTION shop ENABLE").await;
    until("the initial copy has ended", async || {
        program(&database, &replica).await.0 == 0
    })
    .await;
    let server = Server::start_on(database.clone(), |_| {}).await;
    let mut client = server.connect_v1("/ws?user_id=42").await;
    assert_eq!(client.next_json().await["type"], "hello");
    execute(
        &mut theirs,
        "INSERT INTO orders VALUES (2, 42, 'new'); UPDATE orders SET status = 'paid' WHERE id = 1",
    )
    .await;
    for (op, id) in [("insert", 2), ("update", 1)] {
        let event = next_event(&mut client).await;
        assert_eq!(
            (&event["op"], &event["key"]["id"]),
            (&op.into(), &id.into())
        );
    }
    assert!(!server.get("/readyz").await.body.contains("subscription"));
    assert!(program(&database, &["migrate", "up"]).await.0 == 0);
    let end = "ALTER SUBSCRIPTION shop DISABLE; ALTER SUBSCRIPTION shop SET (slot_name = NONE); DROP SUBSCRIPTION shop";
    execute(&mut admin, end).await;
}
