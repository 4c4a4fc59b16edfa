//! Kinds of one's own: a row of `realtime.sources`, its trigger, and its events in the log and in the notification.

use hushnet_realtime::store::{Log, migrate};
use hushnet_testkit::roles::SERVICE;
use serde_json::{Value, json};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{Database, execute, soon};

const ANN: &str = "00000000-0000-0000-0000-00000000000a";
const BEN: &str = "00000000-0000-0000-0000-00000000000b";

/// A table whose every name has to be quoted, in a database with nothing of HushNet's.
const LINES: &str = r#"
    CREATE SCHEMA "My Shop";
    CREATE TABLE "My Shop"."Order Lines" ("Order" int, "line.No" text, "buyer id" uuid, status text, "Qty" int,
        secret text DEFAULT 'never shown', PRIMARY KEY ("line.No", "Order"))"#;

struct Shop {
    database: Database,
    owner: PgConnection,
    listener: PgListener,
}

impl Shop {
    async fn open() -> Self {
        let database = Database::empty().await;
        database.up().await;
        let mut owner = database.connect().await;
        execute(&mut owner, LINES).await;
        execute(&mut owner, "SET synchronous_commit = on").await;
        let mut listener = PgListener::connect(&database.owner_url()).await.unwrap();
        listener.listen("realtime_events").await.unwrap();
        Self {
            database,
            owner,
            listener,
        }
    }

    async fn run(&mut self, statements: &str) {
        execute(&mut self.owner, statements).await;
    }

    async fn number(&mut self, query: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(query));
        query.fetch_one(&mut self.owner).await.unwrap()
    }

    async fn refused(&mut self, statement: &str) -> String {
        let refused = sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut self.owner)
            .await;
        refused.expect_err(statement).to_string()
    }

    /// The events of the log after this one, each without its id; each was notified, to the letter.
    async fn events_after(&mut self, last: i64) -> Vec<(String, Value)> {
        let rows: Vec<(i64, String, String, String)> = sqlx::query_as(
            "SELECT id, user_id::text, xid::text, payload FROM realtime.events WHERE id > $1 ORDER BY id",
        )
        .bind(last)
        .fetch_all(&mut self.owner)
        .await
        .unwrap();
        let mut events = Vec::new();
        for (id, user, xid, payload) in rows {
            let notification = soon("a notification", self.listener.recv()).await.unwrap();
            let body = payload.strip_suffix('}').unwrap();
            assert_eq!(notification.payload(), format!("{body}, \"xid\" : {xid}}}"));
            let mut event: Value = serde_json::from_str(&payload).unwrap();
            assert_eq!(event.as_object_mut().unwrap().remove("id"), Some(id.into()));
            assert_eq!(event["user_id"], user);
            events.push((payload, event));
        }
        events
    }

    async fn last_id(&mut self) -> i64 {
        self.number("SELECT coalesce(max(id), 0) FROM realtime.events")
            .await
    }

    async fn faults(&self) -> Vec<String> {
        let log = Log::new(self.database.owner().options(), 1);
        let faults = log.trigger_faults().await.unwrap();
        faults.iter().map(ToString::to_string).collect()
    }

    async fn kinds(&self) -> Vec<String> {
        let log = Log::new(self.database.owner().options(), 1);
        log.kinds().await.unwrap()
    }

    /// The names of the triggers of the application's tables.
    async fn triggers(&mut self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT tgname::text FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
             WHERE NOT tgisinternal AND relnamespace::regnamespace::text <> 'realtime' ORDER BY 1",
        )
        .fetch_all(&mut self.owner)
        .await
        .unwrap()
    }
}

const ADD_LINES: &str = r#"SELECT realtime.add_source('order.line', '"My Shop"."Order Lines"', 'buyer id',
    fields => '{status,Qty}', condition => 'coalesce(NEW.status, OLD.status) <> ''draft''')"#;

#[tokio::test]
async fn a_kind_of_one_s_own_is_in_the_log_and_in_the_notification() {
    let mut shop = Shop::open().await;
    shop.run(ADD_LINES).await;
    shop.run(&format!(
        r#"INSERT INTO "My Shop"."Order Lines" VALUES (1, 'a', '{ANN}', 'new', 3), (2, 'a', '{ANN}', 'draft', 1),
           (3, 'a', NULL, 'new', 1)"#
    ))
    .await;
    let key = json!({"line.No": "a", "Order": 1});
    let events = shop.events_after(0).await;
    let inserted = json!({"type": "order.line", "op": "insert", "user_id": ANN, "key": key,
        "row": {"status": "new", "Qty": 3}});
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].1, inserted);
    assert!(
        events[0].0.starts_with(&format!(
            r#"{{"type" : "order.line", "op" : "insert", "user_id" : "{ANN}", "key" : {{"line.No":"a","Order":1}}, "row" : "#
        )),
        "{}",
        events[0].0
    );
    // The row changes hands: who had it is not shown what it has become.
    let last = shop.last_id().await;
    shop.run(&format!(
        r#"UPDATE "My Shop"."Order Lines" SET "buyer id" = '{BEN}', "Qty" = 4 WHERE "Order" = 1"#
    ))
    .await;
    let events = shop.events_after(last).await;
    let updated = json!({"type": "order.line", "op": "update", "user_id": BEN, "key": key,
        "row": {"status": "new", "Qty": 4}});
    let gone = json!({"type": "order.line", "op": "delete", "user_id": ANN, "key": key,
        "row": {"status": "new", "Qty": 3}});
    assert_eq!(
        events.iter().map(|event| &event.1).collect::<Vec<_>>(),
        [&updated, &gone]
    );
    let last = shop.last_id().await;
    shop.run(r#"DELETE FROM "My Shop"."Order Lines""#).await;
    let events = shop.events_after(last).await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0].1["op"], &events[0].1["user_id"]),
        (&"delete".into(), &BEN.into())
    );
    // A table with a source is truncated for all.
    shop.run(r#"TRUNCATE "My Shop"."Order Lines""#).await;
    let truncated =
        "SELECT count(*) FROM realtime.events WHERE kind = 'truncated' AND source IS NULL";
    assert_eq!(shop.number(truncated).await, 1);
    assert_eq!(shop.kinds().await, ["order.line"]);
}

#[tokio::test]
async fn an_audience_that_is_a_query_names_each_user_once() {
    let mut shop = Shop::open().await;
    shop.run(
        "CREATE TABLE posts (id int PRIMARY KEY, realtime_user text, u text);
         CREATE TABLE readers (post int, reader uuid, u int)",
    )
    .await;
    shop.run(&format!(
        "INSERT INTO readers VALUES (1, '{ANN}'), (1, '{BEN}'), (1, '{BEN}'), (1, NULL), (2, '{ANN}');
         SELECT realtime.add_source('post', 'posts', $$
             SELECT reader FROM public.readers WHERE post IN (NEW.id, OLD.id) -- whoever reads it
         $$, '{{insert,delete}}')"
    ))
    .await;
    shop.run("INSERT INTO posts VALUES (1)").await;
    shop.run("UPDATE posts SET u = 'x'").await;
    shop.run("DELETE FROM posts").await;
    let events = shop.events_after(0).await;
    let mut short: Vec<_> = events
        .iter()
        .map(|(_, event)| {
            format!(
                "{} {} {}",
                event["op"], event["user_id"], event["key"]["id"]
            )
        })
        .collect();
    short[..2].sort();
    short[2..].sort();
    let expected =
        ["insert", "delete"].map(|op| [ANN, BEN].map(|user| format!("\"{op}\" \"{user}\" 1")));
    assert_eq!(short, expected.concat());
    assert!(events[0].1.get("row").is_none(), "no fields were named");
}

/// What fails at run time fails the application's statement: no event is lost without a word.
#[tokio::test]
async fn an_audience_that_fails_fails_the_statement() {
    let mut shop = Shop::open().await;
    shop.run("CREATE TABLE posts (id int PRIMARY KEY, reader text)")
        .await;
    shop.run("SELECT realtime.add_source('post', 'posts', 'SELECT NEW.reader::uuid')")
        .await;
    let error = shop.refused("INSERT INTO posts VALUES (1, 'nobody')").await;
    assert!(
        error.contains("invalid input syntax for type uuid"),
        "{error}"
    );
    assert_eq!(shop.number("SELECT count(*) FROM posts").await, 0);
}

#[tokio::test]
async fn what_cannot_be_a_source_is_refused_with_the_reason() {
    let mut shop = Shop::open().await;
    shop.run(
        "CREATE TABLE posts (id int PRIMARY KEY, reader uuid, body text);
         CREATE TABLE keyless (reader uuid); CREATE VIEW seen AS SELECT * FROM posts",
    )
    .await;
    for (arguments, reason) in [
        (
            "'hello', 'posts', 'reader'",
            "the kind 'hello': the protocol uses the name itself",
        ),
        ("'a b', 'posts', 'reader'", "1 to 32 characters"),
        ("repeat('k', 33), 'posts', 'reader'", "1 to 32 characters"),
        ("'', 'posts', 'reader'", "1 to 32 characters"),
        (
            "'p', 'posts', 'body'",
            "the audience returns text, and users' ids are of type uuid",
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
            "'p', 'posts', 'SELECT reader'",
            "column reference \"reader\" is ambiguous",
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
    ] {
        let error = shop
            .refused(&format!("SELECT realtime.add_source({arguments})"))
            .await;
        assert!(error.contains(reason), "{arguments}: {error}");
    }
    for reserved in ["revocation", "truncated", "cursor", "ack", "presence"] {
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
            .contains("public.gone is no table")
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
    shop.run("TRUNCATE realtime.events; SELECT realtime.remove_source('order.line')")
        .await;
    shop.run(
        "UPDATE realtime.partitions SET opened_at = clock_timestamp() WHERE opened_at IS NOT NULL",
    )
    .await;
    shop.run(forget).await;
    assert_eq!(shop.number(left).await, 0);
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
    let planned: String = migrate::plan(&url)
        .await
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    for part in [
        "lock public.posts (",
        "create the trigger realtime_source_16 on public.posts",
        "create the trigger realtime_truncate on public.posts",
    ] {
        assert!(planned.contains(part), "{planned}");
    }
    assert_eq!(migrate::up(&url).await.unwrap(), ["public.posts"]);
    assert_eq!(
        shop.triggers().await,
        ["realtime_source_16", "realtime_truncate"]
    );
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

#[tokio::test]
async fn faults_of_a_source_s_trigger_are_found_and_repaired() {
    const TABLE: &str = r#""My Shop"."Order Lines""#;
    for (statements, found, repaired) in [
        (
            format!("ALTER TABLE {TABLE} DISABLE TRIGGER USER"),
            "disabled",
            true,
        ),
        (
            format!("DROP TRIGGER realtime_source_16 ON {TABLE}"),
            "missing",
            true,
        ),
        (
            format!("DROP TRIGGER realtime_truncate ON {TABLE}"),
            "missing",
            true,
        ),
        (
            "DROP FUNCTION realtime.source_16() CASCADE".to_owned(),
            "missing",
            true,
        ),
        (
            format!(
                r#"ALTER TABLE {TABLE} RENAME TO former;
                   CREATE TABLE {TABLE} (LIKE "My Shop".former INCLUDING ALL)"#
            ),
            "missing",
            true,
        ),
        (
            format!("ALTER TABLE {TABLE} RENAME TO former"),
            "table_missing",
            false,
        ),
        (format!("DROP TABLE {TABLE}"), "table_missing", false),
    ] {
        let mut shop = Shop::open().await;
        let url = shop.database.owner();
        shop.run(ADD_LINES).await;
        assert_eq!(shop.faults().await, [""; 0]);
        shop.run(&statements).await;
        assert_eq!(
            shop.faults().await,
            [format!("{TABLE}: {found}")],
            "{statements}"
        );
        let done = migrate::up(&url).await.unwrap();
        if repaired {
            assert_eq!(done, [TABLE], "{statements}");
            assert_eq!(shop.faults().await, [""; 0], "{statements}");
            assert_eq!(
                shop.triggers().await,
                ["realtime_source_16", "realtime_truncate"]
            );
        } else {
            assert_eq!(done, [""; 0]);
            let said = migrate::sources(&url)
                .await
                .unwrap()
                .pop()
                .unwrap()
                .to_string();
            assert_eq!(
                said,
                format!("order.line: no events, there is no table {TABLE}")
            );
            shop.run("SELECT realtime.remove_source('order.line')")
                .await;
            assert_eq!(shop.faults().await, [""; 0]);
            assert_eq!(shop.triggers().await, [""; 0], "{statements}");
        }
        migrate::down(&url).await.unwrap();
    }
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
    let of_server = Log::new(shop.database.url.parse().unwrap(), 1);
    assert_eq!(of_server.kinds().await.unwrap(), ["post"]);
    assert_eq!(of_server.trigger_faults().await.unwrap(), []);
    // A server whose role may not read them goes by what every log had.
    shop.run(&format!("REVOKE SELECT ON realtime.sources FROM {SERVICE}"))
        .await;
    assert_eq!(
        of_server.kinds().await.unwrap(),
        ["device", "message", "session"]
    );
    migrate::up(&shop.database.owner()).await.unwrap();
    assert_eq!(of_server.kinds().await.unwrap(), ["post"]);
}
