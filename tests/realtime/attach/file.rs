//! Sources in a file, as they stand in version control.

use super::{program, shop};
use crate::support::execute;

const FILE: &str = r#"
    [[source]]
    table = "orders"
    user = ["customer", "seller"]
    fields = ["status"]
    changed = true

    [[source]]
    table = "watchers"
    user = "watcher"
    key = ["of_order", "watcher"]
    on = ["delete", "insert"]
"#;

#[tokio::test]
async fn what_a_file_says_is_attached_once_and_what_it_says_next_instead() {
    let database = shop().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sources.toml");
    let name = path.to_str().unwrap();
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    let attach = ["attach", "--file", name];
    let check = ["attach", "--file", name, "--check"];
    write(FILE);
    let (code, said, error) = program(&database, &check).await;
    assert_eq!(code, 1, "{error}");
    assert!(
        error.contains("2 of the file's sources are not in force"),
        "{error}"
    );
    assert!(
        said.contains("add_source('orders', 'public.orders'"),
        "{said}"
    );
    assert_eq!(program(&database, &["sources"]).await.1, "");

    let (code, said, error) = program(&database, &attach).await;
    assert_eq!(code, 0, "{error}");
    assert!(
        said.contains("-- watchers: events of public.watchers"),
        "{said}"
    );
    for arguments in [&attach[..], &check] {
        let nothing = (0, String::new(), String::new());
        assert_eq!(program(&database, arguments).await, nothing);
    }
    // In one transaction the one ends and the other begins.
    write(&FILE.replace("fields = [\"status\"]", "fields = [\"id\", \"status\"]"));
    let (code, said, _) = program(&database, &check).await;
    assert_eq!(code, 1);
    assert!(
        said.contains(
            "-- instead of what orders is now:\nSELECT realtime.remove_source('orders');\n"
        ),
        "{said}"
    );
    let mut application = database.connect().await;
    execute(
        &mut application,
        "INSERT INTO orders VALUES (1, 42, NULL, 'new')",
    )
    .await;
    assert_eq!(program(&database, &attach).await.0, 0);
    execute(&mut application, "UPDATE orders SET status = 'paid'").await;
    let events: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', dense_rank() OVER (ORDER BY source), payload::json ->> 'row', payload::json ->> 'changed')
         FROM realtime.events ORDER BY id",
    )
    .fetch_all(&mut application)
    .await
    .unwrap();
    assert_eq!(events, [r#"1 {"status":"new"}"#, r#"2 {"status":"paid"}"#]);
    let (_, listed, _) = program(&database, &["sources"]).await;
    assert!(listed.contains("fields: id, status"), "{listed}");
    assert_eq!(program(&database, &check).await.0, 0);
}

#[tokio::test]
async fn a_mistake_in_a_file_is_named() {
    let database = shop().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sources.toml");
    let name = path.to_str().unwrap();
    let attach = ["attach", "--file", name];
    // What is in force is checked against the table as it is now.
    std::fs::write(&path, FILE).unwrap();
    assert_eq!(program(&database, &attach).await.0, 0);
    execute(
        &mut database.connect().await,
        "ALTER TABLE orders DROP status",
    )
    .await;
    let (code, _, error) = program(&database, &["attach", "--file", name, "--check"]).await;
    assert_eq!(code, 2);
    assert!(
        error.contains("public.orders has no column status"),
        "{error}"
    );
    for (text, said) in [
        ("[[source]]\ntable = \"orders\"\nusers = 1", "invalid type"),
        (
            "[[source]]\ntable = \"nothing\"\nuser = \"x\"",
            "there is no table nothing",
        ),
        ("[[source]]\ntable = \"orders\"", "no users"),
    ] {
        std::fs::write(&path, text).unwrap();
        let (code, _, error) = program(&database, &attach).await;
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(said), "{error}");
    }
    let (code, _, error) = program(&database, &["attach", "orders", "--file", name]).await;
    assert_eq!(code, 2);
    assert!(error.contains("cannot be used with"), "{error}");
}
