//! What the application does to a table that is attached. Nothing of ours is in its way; what no longer fits is said, and
//! attaching the table again repairs it.

use sqlx::PgConnection;

use super::program;
use crate::support::{Database, execute};

const ORDERS: &str =
    "CREATE TABLE orders (id int PRIMARY KEY, customer bigint, status text, total int)";
const ATTACH: [&str; 8] = [
    "attach",
    "orders",
    "--user",
    "customer",
    "--fields",
    "status",
    "--when",
    "NEW.total > 0",
];

async fn shop() -> (Database, PgConnection) {
    let database = Database::empty().await;
    database.up().await;
    let mut owner = database.connect().await;
    execute(&mut owner, ORDERS).await;
    let (code, _, error) = program(&database, &ATTACH).await;
    assert_eq!(code, 0, "{error}");
    (database, owner)
}

/// The events since the last call, each as its operation, and `failed`.
async fn written(owner: &mut PgConnection) -> String {
    sqlx::query_scalar(
        "WITH written AS (DELETE FROM realtime.log RETURNING id, op, kind)
         SELECT coalesce(string_agg(CASE WHEN kind = 'event_failed' THEN 'failed' ELSE op::text END, ' ' ORDER BY id), '')
         FROM written",
    )
    .fetch_one(owner)
    .await
    .unwrap()
}

/// What `/readyz` is degraded for.
async fn faults(database: &Database) -> Vec<String> {
    let faults = database.log(1).trigger_faults().await.unwrap();
    faults.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn columns_come_and_go_and_change() {
    let (database, mut owner) = shop().await;
    for (statement, expected) in [
        ("INSERT INTO orders VALUES (1, 42, 'new', 1)", "i"),
        (
            "ALTER TABLE orders ADD note text DEFAULT 'x', ALTER total TYPE bigint",
            "",
        ),
        ("UPDATE orders SET note = 'y'", "u"),
        (
            "ALTER TABLE orders ALTER status TYPE json USING to_json(status)",
            "",
        ),
        ("UPDATE orders SET status = '{}'", "u"),
        ("ALTER TABLE orders DROP status", ""),
        ("UPDATE orders SET note = 'z'", "failed"),
        ("ALTER TABLE orders RENAME customer TO buyer", ""),
        ("DELETE FROM orders", "failed"),
    ] {
        execute(&mut owner, statement).await;
        assert_eq!(written(&mut owner).await, expected, "{statement}");
    }
    let (code, _, error) = program(&database, &ATTACH).await;
    assert_eq!(code, 2);
    assert!(
        error.contains("public.orders has no column status"),
        "{error}"
    );
    let (_, listed, _) = program(&database, &["sources"]).await;
    assert!(
        listed.contains("  wrong: public.orders has no column "),
        "{listed}"
    );
    let again = ["attach", "orders", "--user", "buyer", "--fields", "note"];
    let (code, said, error) = program(&database, &again).await;
    assert_eq!(code, 0, "{error}");
    assert!(
        said.starts_with("-- instead of what orders is now:\n"),
        "{said}"
    );
    execute(&mut owner, "INSERT INTO orders VALUES (1, 42, 1, 'x')").await;
    assert_eq!(written(&mut owner).await, "i");
}

/// A table that is renamed or moved takes its triggers along, and its events go on.
#[tokio::test]
async fn a_table_is_renamed_moved_and_made_anew() {
    let (database, mut owner) = shop().await;
    for (statement, name) in [
        ("ALTER TABLE orders RENAME TO purchases", "purchases"),
        (
            "CREATE SCHEMA trade; ALTER TABLE purchases SET SCHEMA trade",
            "trade.purchases",
        ),
    ] {
        execute(&mut owner, statement).await;
        execute(
            &mut owner,
            &format!("INSERT INTO {name} VALUES (length('{name}'), 42, 'new', 1)"),
        )
        .await;
        assert_eq!(written(&mut owner).await, "i", "{statement}");
    }
    assert_eq!(faults(&database).await, ["public.orders: table_missing"]);
    let (_, listed, _) = program(&database, &["sources"]).await;
    assert!(
        listed.contains("  wrong: there is no table public.orders"),
        "{listed}"
    );
    let (_, said, _) = program(&database, &["migrate", "up"]).await;
    assert!(
        said.contains("orders: events of trade.purchases\n"),
        "{said}"
    );
    let again = [
        "attach",
        "trade.purchases",
        "--kind",
        "orders",
        "--user",
        "customer",
    ];
    let (code, _, error) = program(&database, &again).await;
    assert_eq!(code, 0, "{error}");
    execute(&mut owner, "UPDATE trade.purchases SET total = 2").await;
    assert_eq!(written(&mut owner).await, "u u", "once for each row");
    // Another table's events are not ended by a slip of the hand.
    execute(&mut owner, ORDERS).await;
    let (code, _, error) = program(&database, &["attach", "orders", "--user", "customer"]).await;
    assert_eq!(code, 2);
    assert!(
        error.contains("a source of this kind is in force"),
        "{error}"
    );

    execute(
        &mut owner,
        "DROP TABLE trade.purchases; CREATE TABLE trade.purchases (LIKE orders INCLUDING ALL)",
    )
    .await;
    assert_eq!(faults(&database).await, ["trade.purchases: missing"]);
    let (code, _, error) = program(&database, &again).await;
    assert_eq!(code, 0, "{error}");
    execute(
        &mut owner,
        "INSERT INTO trade.purchases VALUES (1, 42, 'new', 1)",
    )
    .await;
    assert_eq!(written(&mut owner).await, "i");
    assert!(faults(&database).await.is_empty());

    execute(&mut owner, "DROP TABLE trade.purchases").await;
    let (code, said, error) = program(&database, &["detach", "orders"]).await;
    assert_eq!(code, 0, "{error}");
    assert_eq!(said, "orders: no more events of trade.purchases\n");
}

#[tokio::test]
async fn a_partition_is_attached_and_detached() {
    let database = Database::empty().await;
    database.up().await;
    let mut owner = database.connect().await;
    let partitioned = ORDERS.to_owned()
        + " PARTITION BY RANGE (id); CREATE TABLE early PARTITION OF orders
        FOR VALUES FROM (0) TO (10); CREATE TABLE late (LIKE orders INCLUDING ALL)";
    execute(&mut owner, &partitioned).await;
    let (code, _, error) = program(&database, &ATTACH).await;
    assert_eq!(code, 0, "{error}");
    for (statement, expected) in [
        ("INSERT INTO late VALUES (10, 42, 'new', 1)", ""),
        (
            "ALTER TABLE orders ATTACH PARTITION late FOR VALUES FROM (10) TO (20)",
            "",
        ),
        (
            "INSERT INTO orders VALUES (11, 42, 'new', 1), (1, 42, 'new', 1)",
            "i i",
        ),
        ("UPDATE late SET total = 2", "u u"),
        ("ALTER TABLE orders DETACH PARTITION late", ""),
        ("UPDATE late SET total = 3", ""),
        ("DELETE FROM orders", "d"),
    ] {
        execute(&mut owner, statement).await;
        assert_eq!(written(&mut owner).await, expected, "{statement}");
    }
}
