//! The triggers of sources are planned, put in their places, found faulty and repaired.

use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::store::migrate;

use super::{ADD_LINES, ANN, Shop};

/// Those of a source of a table that is no partition.
const TRIGGERS: [&str; 4] = [
    "realtime_source_16_delete",
    "realtime_source_16_insert",
    "realtime_source_16_update",
    "realtime_truncate",
];

/// What `migrate up` would do.
async fn planned(url: &DatabaseUrl) -> String {
    let steps = migrate::plan(url).await.unwrap();
    steps.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_row_is_made_a_source_by_migrate_up_as_it_was_planned() {
    let mut shop = Shop::open().await;
    let url = shop.database.owner();
    shop.run(
        "CREATE TABLE posts (id int PRIMARY KEY, reader uuid);
         INSERT INTO realtime.sources (kind, relation, audience) VALUES ('post', 'public.posts', 'reader')",
    )
    .await;
    let planned = planned(&url).await;
    for part in [
        "lock public.posts (",
        "create the trigger realtime_source_16_delete on public.posts",
        "create the trigger realtime_source_16_insert on public.posts",
        "create the trigger realtime_source_16_update on public.posts",
        "create the trigger realtime_truncate on public.posts",
    ] {
        assert!(planned.contains(part), "{planned}");
    }
    assert_eq!(migrate::up(&url).await.unwrap(), ["public.posts"]);
    assert_eq!(shop.triggers().await, TRIGGERS);
    assert_eq!(migrate::plan(&url).await.unwrap().len(), 0);
    shop.run(&format!("INSERT INTO posts VALUES (1, '{ANN}')"))
        .await;
    assert_eq!(shop.events_after(0).await.len(), 1);
    let sources = migrate::sources(&url).await.unwrap();
    assert_eq!(
        sources.last().unwrap().to_string(),
        "post: events of public.posts"
    );
    migrate::down(&url).await.unwrap();
    assert_eq!(shop.triggers().await, [""; 0]);
}

const TABLE: &str = r#""My Shop"."Order Lines""#;

/// What is done to `$table`, the fault, and whether `migrate up` can mend it.
const FAULTS: [(&str, &str, bool); 9] = [
    ("ALTER TABLE $table DISABLE TRIGGER USER", "disabled", true),
    (
        "ALTER TABLE $table DISABLE TRIGGER USER; ALTER TABLE $table ENABLE TRIGGER USER",
        "disabled",
        true,
    ),
    (
        "DROP TRIGGER realtime_source_16_update ON $table",
        "missing",
        true,
    ),
    (
        "ALTER TABLE $table DISABLE TRIGGER realtime_source_16_delete",
        "disabled",
        true,
    ),
    ("DROP TRIGGER realtime_truncate ON $table", "missing", true),
    (
        "DROP FUNCTION realtime.source_16() CASCADE",
        "missing",
        true,
    ),
    (
        r#"ALTER TABLE $table RENAME TO former; CREATE TABLE $table (LIKE "My Shop".former INCLUDING ALL)"#,
        "missing",
        true,
    ),
    (
        "ALTER TABLE $table RENAME TO former",
        "table_missing",
        false,
    ),
    ("DROP TABLE $table", "table_missing", false),
];

#[tokio::test]
async fn faults_of_a_source_s_trigger_are_found_and_repaired() {
    for (statements, found, repaired) in FAULTS {
        let mut shop = Shop::open().await;
        let url = shop.database.owner();
        shop.run(ADD_LINES).await;
        assert_eq!(shop.faults().await, [""; 0]);
        shop.run(&statements.replace("$table", TABLE)).await;
        assert_eq!(
            shop.faults().await,
            [format!("{TABLE}: {found}")],
            "{statements}"
        );
        let done = migrate::up(&url).await.unwrap();
        if repaired {
            assert_eq!(done, [TABLE], "{statements}");
            assert_eq!(shop.faults().await, [""; 0], "{statements}");
            assert_eq!(shop.triggers().await, TRIGGERS);
        } else {
            assert_eq!(done, [""; 0]);
            let said = migrate::sources(&url)
                .await
                .unwrap()
                .pop()
                .unwrap()
                .to_string();
            let expected = if statements.contains("RENAME") {
                r#"order.line: events of "My Shop".former"#.to_owned()
            } else {
                format!("order.line: no events, there is no table {TABLE}")
            };
            assert_eq!(said, expected);
            shop.run("SELECT realtime.remove_source('order.line')")
                .await;
            assert_eq!(shop.faults().await, [""; 0]);
            assert_eq!(shop.triggers().await, [""; 0], "{statements}");
        }
        migrate::down(&url).await.unwrap();
    }
}

/// A partition has the triggers of rows itself, and each can be disabled there.
#[tokio::test]
async fn a_trigger_that_is_disabled_on_a_partition_is_found_and_repaired() {
    let mut shop = Shop::open().await;
    let url = shop.database.owner();
    shop.run(
        "CREATE TABLE posts (id int PRIMARY KEY, reader uuid) PARTITION BY RANGE (id);
         CREATE TABLE \"Old Posts\" PARTITION OF posts FOR VALUES FROM (0) TO (10);
         CREATE TABLE posts_2 PARTITION OF posts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
         CREATE TABLE posts_3 PARTITION OF posts_2 FOR VALUES FROM (10) TO (20);
         SELECT realtime.add_source('post', 'posts', 'reader')",
    )
    .await;
    assert_eq!(shop.faults().await, [""; 0]);
    for (table, id) in [(r#"public."Old Posts""#, 1), ("public.posts_3", 11)] {
        shop.run(&format!("ALTER TABLE {table} DISABLE TRIGGER USER"))
            .await;
        assert_eq!(shop.faults().await, [format!("{table}: disabled")]);
        let planned = planned(&url).await;
        for part in [format!("lock {table} ("), format!("of {table}")] {
            assert!(planned.contains(&part), "{planned}");
        }
        assert_eq!(migrate::up(&url).await.unwrap(), [table]);
        assert_eq!(shop.faults().await, [""; 0]);
        assert_eq!(migrate::plan(&url).await.unwrap().len(), 0);
        let last = shop.last_id().await;
        shop.run(&format!("INSERT INTO posts VALUES ({id}, '{ANN}')"))
            .await;
        assert_eq!(shop.events_after(last).await.len(), 1);
    }
}
