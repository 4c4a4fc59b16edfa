//! What a source may say, its number, and who may add one.

use hushnet_realtime::store::{is_forbidden, migrate};
use hushnet_testkit::roles::SERVICE;

use super::{ADD_LINES, ANN, Shop};

/// What `add_source` is given, and why it is refused.
const REFUSED: [(&str, &str); 21] = [
    (
        "'p', 'posts', 'reader', fields => '{id,id}'",
        "a column is named twice",
    ),
    (
        "'p', 'posts', 'reader', keys => '{id,NULL}'",
        "a column is named twice, or is null",
    ),
    (
        "'hello', 'posts', 'reader'",
        "the kind 'hello': the protocol uses the name itself",
    ),
    ("'a b', 'posts', 'reader'", "1 to 32 characters"),
    ("repeat('k', 33), 'posts', 'reader'", "1 to 32 characters"),
    ("'', 'posts', 'reader'", "1 to 32 characters"),
    (
        "'p', 'posts', 'SELECT NEW.body::json'",
        "the audience returns json, and users' ids are of type uuid, bigint or text",
    ),
    (
        "'p', 'posts', 'author'",
        "the audience 'author' is neither a column of public.posts nor a query",
    ),
    (
        "'p', 'posts', 'SELECT reader, id FROM public.posts'",
        "subquery must return only one column",
    ),
    (
        "'p', 'posts', 'SELECT reader FROM posts'",
        "relation \"posts\" does not exist",
    ),
    (
        "'p', 'posts', 'SELECT NEW.author'",
        "column new.author does not exist",
    ),
    (
        "'p', 'posts', 'SELECT OLD.reader'",
        "missing FROM-clause entry for table \"old\"",
    ),
    (
        "'p', 'posts', 'reader', fields => '{id,title}'",
        "public.posts has no column title",
    ),
    (
        "'p', 'posts', 'reader', condition => 'NEW.body'",
        "the condition is of type text, not boolean",
    ),
    (
        "'p', 'posts', 'reader', condition => 'NEW.body ='",
        "syntax error",
    ),
    (
        "'p', 'posts', 'reader', condition => 'count(*) > 0'",
        "aggregate functions are not allowed in WHERE",
    ),
    (
        "'p', 'posts', 'reader', condition => 'unnest(ARRAY[true, false])'",
        "set-returning functions are not allowed in WHERE",
    ),
    (
        "'p', 'posts', 'reader', '{upsert}'",
        "sources_operations_check",
    ),
    (
        "'p', 'keyless', 'reader'",
        "public.keyless has no primary key",
    ),
    (
        "'p', 'seen', 'reader'",
        "public.seen is no table whose changes can be events",
    ),
    (
        "'p', 'realtime.state', 'reader'",
        "realtime.state is no table whose changes can be events",
    ),
];

/// A stored generated column is a column like others. A virtual one, which PostgreSQL 18 has, has no value in a trigger.
#[tokio::test]
async fn a_generated_column_is_shown_if_it_is_stored() {
    let mut shop = Shop::open().await;
    shop.run(
        "CREATE TABLE posts (id int PRIMARY KEY, reader uuid, body text, long text GENERATED ALWAYS AS (body || body) STORED,
             number int GENERATED ALWAYS AS IDENTITY);
         SELECT realtime.add_source('post', 'posts', 'reader', fields => '{long,number}', condition => $$NEW.long <> ''$$)",
    )
    .await;
    let last = shop.last_id().await;
    shop.run(&format!("INSERT INTO posts VALUES (1, '{ANN}', 'ab')"))
        .await;
    let row = &shop.events_after(last).await[0].1["row"];
    assert_eq!(*row, serde_json::json!({"long": "abab", "number": 1}));
    let has_virtual = "SELECT (current_setting('server_version_num')::int >= 180000)::int::bigint";
    let virtual_column =
        "ALTER TABLE posts ADD short text GENERATED ALWAYS AS (left(body, 1)) VIRTUAL,
        ADD other uuid GENERATED ALWAYS AS (reader) VIRTUAL";
    if shop.number(has_virtual).await == 0 {
        assert!(shop.refused(virtual_column).await.contains("syntax error"));
        return;
    }
    shop.run(virtual_column).await;
    for (arguments, reason) in [
        (
            "'p', 'posts', 'reader', fields => '{short}'",
            "public.posts.short is a virtual generated column",
        ),
        (
            "'p', 'posts', 'other'",
            "public.posts.other is a virtual generated column",
        ),
        (
            "'p', 'posts', 'SELECT NEW.other'",
            "column new.other does not exist",
        ),
        (
            "'p', 'posts', 'reader', condition => $$NEW.short = ''$$",
            "column new.short does not exist",
        ),
    ] {
        let error = shop
            .refused(&format!("SELECT realtime.add_source({arguments})"))
            .await;
        assert!(error.contains(reason), "{arguments}: {error}");
    }
    // Beside what a source names it is in nobody's way.
    shop.run("INSERT INTO posts VALUES (2, NULL, 'cd'); UPDATE posts SET body = 'ef' WHERE id = 1")
        .await;
    let failed = "SELECT count(*) FROM realtime.events WHERE kind = 'event_failed'";
    assert_eq!(shop.number(failed).await, 0);
}

#[tokio::test]
async fn what_cannot_be_a_source_is_refused_with_the_reason() {
    let mut shop = Shop::open().await;
    shop.run(
        "CREATE TABLE posts (id int PRIMARY KEY, reader uuid, body text);
         CREATE TABLE keyless (reader uuid); CREATE VIEW seen AS SELECT * FROM posts",
    )
    .await;
    for (arguments, reason) in REFUSED {
        let error = shop
            .refused(&format!("SELECT realtime.add_source({arguments})"))
            .await;
        assert!(error.contains(reason), "{arguments}: {error}");
    }
    for reserved in [
        "revocation",
        "truncated",
        "cursor",
        "ack",
        "presence",
        "other",
    ] {
        let add = format!("SELECT realtime.add_source('{reserved}', 'posts', 'reader')");
        assert!(
            shop.refused(&add)
                .await
                .contains("the protocol uses the name itself")
        );
    }
    assert_eq!(
        shop.number("SELECT count(*) FROM realtime.sources").await,
        0
    );
    assert_eq!(shop.triggers().await, [""; 0]);
    let missing = "INSERT INTO realtime.sources (kind, relation, audience) VALUES ('p', 'public.gone', 'reader')";
    assert!(
        shop.refused(missing)
            .await
            .contains("there is no table public.gone")
    );
    shop.run("SELECT realtime.add_source('p', 'posts', 'reader')")
        .await;
    let again = shop
        .refused("SELECT realtime.add_source('p', 'posts', 'reader')")
        .await;
    assert!(
        again.contains("a source of this kind is in force"),
        "{again}"
    );
    let change = shop
        .refused("UPDATE realtime.sources SET fields = '{body}'")
        .await;
    assert!(change.contains("a source is never changed"), "{change}");
}

#[tokio::test]
async fn there_are_256_kinds_at_most() {
    let mut shop = Shop::open().await;
    shop.run("CREATE TABLE posts (id int PRIMARY KEY, reader uuid)")
        .await;
    let add = |from, to| {
        format!(
            "INSERT INTO realtime.sources (kind, relation, audience)
             SELECT 'kind-' || n, 'public.posts', 'reader' FROM generate_series({from}, {to}) AS n"
        )
    };
    shop.run(&add(1, 256)).await;
    let error = shop.refused(&add(257, 257)).await;
    assert!(
        error.contains("there are 256 different kinds already"),
        "{error}"
    );
    // Another version of a kind is no other kind.
    shop.run("UPDATE realtime.sources SET retired_at = now() WHERE kind = 'kind-7'")
        .await;
    shop.run(&add(7, 7)).await;
    assert!(shop.refused(&add(257, 257)).await.contains("256"));
    assert_eq!(shop.kinds().await.len(), 256);
}

#[tokio::test]
async fn each_version_has_a_number_that_no_row_of_the_log_has() {
    let mut shop = Shop::open().await;
    let number = async |shop: &mut Shop| {
        let added: i16 = sqlx::query_scalar(ADD_LINES)
            .fetch_one(&mut shop.owner)
            .await
            .unwrap();
        added
    };
    assert_eq!(number(&mut shop).await, 16);
    shop.run("SELECT realtime.remove_source('order.line')")
        .await;
    assert_eq!(number(&mut shop).await, 17);
    let insert =
        format!(r#"INSERT INTO "My Shop"."Order Lines" VALUES (1, 'a', '{ANN}', 'new', 3)"#);
    shop.run(&insert).await;
    assert_eq!(
        shop.number("SELECT source::bigint FROM realtime.events")
            .await,
        17
    );
    shop.run("SELECT realtime.remove_source('order.line')")
        .await;
    assert_eq!(shop.triggers().await, [""; 0]);
    let functions = "SELECT count(*) FROM pg_proc WHERE proname ~ '^source_[0-9]'";
    assert_eq!(shop.number(functions).await, 0);
    assert_eq!(
        shop.kinds().await,
        ["order.line"],
        "the log may have its events"
    );

    // A retired source is deleted when every partition is younger and the log has none of its events.
    let forget = "SELECT realtime.forget_sources()";
    let left = "SELECT count(*) FROM realtime.sources";
    shop.run(forget).await;
    assert_eq!(shop.number(left).await, 2);
    shop.run(
        "UPDATE realtime.partitions SET opened_at = clock_timestamp() WHERE opened_at IS NOT NULL",
    )
    .await;
    shop.run(forget).await;
    assert_eq!(shop.number(left).await, 1, "17 is in the log");
    // All numbers have been drawn once.
    shop.run("SELECT setval('realtime.source_numbers', 32752)")
        .await;
    assert_eq!(number(&mut shop).await, 16);
    shop.run("SELECT realtime.remove_source('order.line'); DELETE FROM realtime.sources")
        .await;
    assert_eq!(
        number(&mut shop).await,
        18,
        "17 is in the log and has no row"
    );
    shop.run("TRUNCATE realtime.log; SELECT realtime.remove_source('order.line')")
        .await;
    shop.run(
        "UPDATE realtime.partitions SET opened_at = clock_timestamp() WHERE opened_at IS NOT NULL",
    )
    .await;
    shop.run(forget).await;
    assert_eq!(shop.number(left).await, 0);
}

#[tokio::test]
async fn only_the_owner_makes_sources_and_a_server_reads_them() {
    let mut shop = Shop::open().await;
    shop.run("CREATE TABLE posts (id int PRIMARY KEY, reader uuid)")
        .await;
    shop.run("SELECT realtime.add_source('post', 'posts', 'reader')")
        .await;
    let may = format!(
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace
         AND (proname IN ('add_source', 'remove_source', 'repair_triggers') OR proname ~ '^source_')
         AND has_function_privilege('{SERVICE}', oid, 'EXECUTE')"
    );
    assert_eq!(shop.number(&may).await, 0);
    let writes = format!(
        "SELECT count(*) FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS privilege
         WHERE has_table_privilege('{SERVICE}', 'realtime.sources', privilege)"
    );
    assert_eq!(shop.number(&writes).await, 0);
    let of_server = shop.database.log(1);
    assert_eq!(of_server.kinds().await.unwrap(), ["post"]);
    assert_eq!(of_server.trigger_faults().await.unwrap(), []);
    // Without them nobody can read the log's events: the server says so and skips none.
    shop.run(&format!("REVOKE SELECT ON realtime.sources FROM {SERVICE}"))
        .await;
    for error in [
        of_server.kinds().await.err(),
        of_server.read_kinds().await.err(),
    ] {
        assert!(is_forbidden(&error.unwrap()));
    }
    migrate::up(&shop.database.owner()).await.unwrap();
    assert_eq!(of_server.kinds().await.unwrap(), ["post"]);
}
