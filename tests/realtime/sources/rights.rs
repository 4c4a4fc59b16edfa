//! With whose rights a trigger's function runs: those of the table's owner, and of the log's owner for the log alone.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{ANN, Shop};
use crate::support::execute;

/// A shop's tables of a role of its own, in a schema of its own. The log's owner is a member of it, as whoever attaches a
/// table has to be of both.
async fn of_another_owner() -> (Shop, PgConnection, String) {
    let mut shop = Shop::open().await;
    let mut admin = shop.database.admin().await;
    let merchant = format!("merchant_{}", uuid::Uuid::new_v4().simple());
    let create = format!(
        "CREATE ROLE {merchant}; GRANT {merchant} TO hushnet_owner; CREATE SCHEMA trade AUTHORIZATION {merchant};
         SET ROLE {merchant};
         CREATE TABLE trade.members (team int, member uuid);
         CREATE TABLE trade.ran_as (role name);
         CREATE FUNCTION trade.members_of(wanted int) RETURNS SETOF uuid LANGUAGE sql AS $$
             INSERT INTO trade.ran_as VALUES (current_user);
             SELECT member FROM trade.members WHERE team = wanted $$;
         CREATE TABLE trade.orders (id int PRIMARY KEY, team int, status text); RESET ROLE"
    );
    execute(&mut admin, &create).await;
    shop.run(
        "SELECT realtime.add_source('order', 'trade.orders', 'SELECT trade.members_of(NEW.team)', fields => '{status}')",
    )
    .await;
    (shop, admin, merchant)
}

async fn refused(connection: &mut PgConnection, statement: &str) -> String {
    let refused = sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await;
    refused.expect_err(statement).to_string()
}

#[tokio::test]
async fn what_a_source_says_runs_with_the_rights_of_the_table_s_owner() {
    let (mut shop, mut admin, merchant) = of_another_owner().await;
    // A writer without any right of ours.
    execute(
        &mut admin,
        &format!(
            "CREATE ROLE writer_{merchant}; GRANT USAGE ON SCHEMA trade TO writer_{merchant};
             GRANT INSERT ON trade.orders TO writer_{merchant};
             INSERT INTO trade.members VALUES (1, '{ANN}'); SET ROLE writer_{merchant};
             INSERT INTO trade.orders VALUES (1, 1, 'new'); RESET ROLE"
        ),
    )
    .await;
    let events = "SELECT count(*) FROM realtime.events WHERE kind = 'order' AND op = 'i'";
    assert_eq!(shop.number(events).await, 1);
    let others = format!("SELECT count(*) FROM trade.ran_as WHERE role <> '{merchant}'");
    execute(&mut shop.owner, &format!("SET ROLE {merchant}")).await;
    assert_eq!(shop.number(&others).await, 0);
    assert_eq!(shop.number("SELECT count(*) FROM trade.ran_as").await, 1);
    execute(&mut shop.owner, "RESET ROLE").await;
    // The owner of the table has no other right in the log, and nobody else has his.
    execute(&mut admin, &format!("SET ROLE {merchant}")).await;
    for statement in [
        "SELECT FROM realtime.log",
        "SELECT FROM realtime.events",
        "SELECT realtime.write(16::smallint, false, '{}')",
        "SELECT realtime.write_failed(16::smallint, '22P02')",
        "SELECT realtime.emit(1::smallint, gen_random_uuid(), 'i', '{}')",
        "CREATE FUNCTION realtime.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLE realtime.mine ()",
    ] {
        let error = refused(&mut admin, statement).await;
        assert!(error.contains("permission denied"), "{statement}: {error}");
    }
    execute(&mut admin, &format!("SET ROLE writer_{merchant}")).await;
    let error = refused(&mut admin, "SELECT realtime.write_16('{}', '22P02')").await;
    assert!(error.contains("permission denied"), "{error}");
}

/// Neither of the two owners alone makes a source.
#[tokio::test]
async fn who_attaches_is_of_both_owners() {
    let (mut shop, mut admin, merchant) = of_another_owner().await;
    execute(
        &mut admin,
        &format!(
            "REVOKE {merchant} FROM hushnet_owner; GRANT USAGE ON SCHEMA trade TO hushnet_owner; GRANT SELECT ON trade.orders TO hushnet_owner"
        ),
    )
    .await;
    let add = "SELECT realtime.add_source('more', 'trade.orders', 'SELECT gen_random_uuid()')";
    let error = shop.refused(add).await;
    assert!(error.contains("must be"), "{error}");
    execute(&mut admin, &format!("SET ROLE {merchant}")).await;
    let error = refused(&mut admin, add).await;
    assert!(error.contains("permission denied"), "{error}");
    let sources = "SELECT count(*) FROM realtime.sources";
    assert_eq!(shop.number(sources).await, 1);
}

/// Whoever owns the table next, `migrate up` gives them the function, and nothing stays with the owner of before.
#[tokio::test]
async fn another_owner_of_the_table_is_noticed() {
    let (mut shop, mut admin, merchant) = of_another_owner().await;
    let owner =
        "SELECT count(*) FROM pg_proc, pg_class WHERE proname = 'source_16' AND relname = 'orders'
                 AND proowner = relowner";
    assert_eq!(shop.number(owner).await, 1);
    execute(
        &mut admin,
        &format!(
            "CREATE ROLE heir_{merchant}; GRANT heir_{merchant} TO hushnet_owner;
             ALTER TABLE trade.orders OWNER TO heir_{merchant}"
        ),
    )
    .await;
    assert_eq!(shop.number(owner).await, 0);
    shop.database.up().await;
    assert_eq!(shop.number(owner).await, 1);
    execute(&mut admin, "INSERT INTO trade.orders VALUES (1, 1, 'new')").await;
    let former = format!("SELECT has_function_privilege('{merchant}', (SELECT oid FROM pg_proc WHERE proname = 'write_16'),
                                                         'EXECUTE')::int::bigint");
    assert_eq!(shop.number(&former).await, 0);
    // The heir may not read the members: that is an event that has failed, not the statement.
    let failed = "SELECT count(*) FROM realtime.events WHERE kind = 'event_failed'";
    assert_eq!(shop.number(failed).await, 1);
    let create = format!(
        "SELECT count(*) FROM pg_namespace, aclexplode(nspacl) AS acl
         WHERE nspname = 'realtime' AND privilege_type = 'CREATE' AND grantee <> nspowner
         AND grantee IN ('{merchant}'::regrole, 'heir_{merchant}'::regrole)"
    );
    assert_eq!(shop.number(&create).await, 0);
}

/// A table that its owner is not to see whole: what an audience reads of it fails instead of being left out.
#[tokio::test]
async fn row_security_fails_the_event_and_hides_no_user() {
    let (mut shop, mut admin, merchant) = of_another_owner().await;
    execute(
        &mut admin,
        &format!(
            "INSERT INTO trade.members VALUES (1, '{ANN}'); ALTER TABLE trade.members OWNER TO CURRENT_USER;
             GRANT SELECT ON trade.members TO {merchant}; ALTER TABLE trade.members ENABLE ROW LEVEL SECURITY;
             CREATE POLICY none ON trade.members USING (false); INSERT INTO trade.orders VALUES (1, 1, 'new')"
        ),
    )
    .await;
    let failed =
        "SELECT count(*) FROM realtime.events WHERE payload::json ->> 'sqlstate' = '42501'";
    assert_eq!(shop.number(failed).await, 1);
    assert_eq!(shop.number("SELECT count(*) FROM trade.orders").await, 1);
}

/// A role that owns a type with a cast and a schema with namesakes of what a trigger calls.
const HOSTILE: &str = r#"
    CREATE ROLE $evil; CREATE SCHEMA evil AUTHORIZATION $evil; GRANT USAGE ON SCHEMA evil, trade TO PUBLIC;
    CREATE TABLE trade.called (by name, what text); GRANT INSERT ON trade.called TO PUBLIC;
    GRANT ALL ON ALL TABLES IN SCHEMA trade TO $evil; GRANT CREATE ON SCHEMA evil TO PUBLIC;
    SET ROLE $evil;
    CREATE TYPE evil.mood AS ENUM ('good', 'bad', 'worse');
    CREATE FUNCTION evil.mood_json(evil.mood) RETURNS json LANGUAGE sql AS $$
        INSERT INTO trade.called VALUES (current_user, 'cast'); SELECT pg_catalog.to_json($1::text) $$;
    CREATE CAST (evil.mood AS json) WITH FUNCTION evil.mood_json(evil.mood);
    CREATE FUNCTION evil.mood_text(evil.mood) RETURNS text LANGUAGE sql AS $$
        INSERT INTO trade.called VALUES (current_user, 'cast'); SELECT 'mine' $$;
    CREATE CAST (evil.mood AS text) WITH FUNCTION evil.mood_text(evil.mood);
    CREATE TYPE evil.pair AS (first evil.mood, second text);
    CREATE FUNCTION evil.pair_json(evil.pair) RETURNS json LANGUAGE sql AS $$
        INSERT INTO trade.called VALUES (current_user, 'cast'); SELECT '1'::json $$;
    CREATE CAST (evil.pair AS json) WITH FUNCTION evil.pair_json(evil.pair);
    CREATE FUNCTION evil.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE sql AS $$
        INSERT INTO trade.called VALUES (current_user, 'unnest'); SELECT pg_catalog.unnest($1) $$;
    CREATE FUNCTION evil.to_json(anyelement) RETURNS json LANGUAGE sql AS $$
        INSERT INTO trade.called VALUES (current_user, 'to_json'); SELECT '1'::json $$;
    CREATE FUNCTION evil.array_append(anyarray, anyelement) RETURNS anyarray LANGUAGE sql AS $$
        INSERT INTO trade.called VALUES (current_user, 'array_append'); SELECT $1 $$;
    CREATE FUNCTION evil.same(text[], text[]) RETURNS boolean LANGUAGE sql AS $$
        INSERT INTO trade.called VALUES (current_user, '='); SELECT false $$;
    CREATE OPERATOR evil.= (LEFTARG = text[], RIGHTARG = text[], FUNCTION = evil.same);
    RESET ROLE; SET ROLE $merchant;
    CREATE TABLE trade."o""; DROP TABLE x; --" (id int PRIMARY KEY, "a'b""c$$" evil.mood, reader uuid,
        moods evil.mood[], pair evil.pair DEFAULT ('bad', 'a "b"'), pairs evil.pair[]);
    RESET ROLE; GRANT ALL ON ALL TABLES IN SCHEMA trade TO $evil; GRANT USAGE ON SCHEMA evil TO $merchant"#;

/// What others have made never runs with the rights of the log's owner, and never in the place of PostgreSQL's own.
#[tokio::test]
async fn hostile_types_casts_operators_and_search_paths() {
    let (mut shop, mut admin, merchant) = of_another_owner().await;
    let evil = format!("evil_{merchant}");
    let hostile = HOSTILE.replace("$evil", &evil);
    execute(&mut admin, &hostile.replace("$merchant", &merchant)).await;
    shop.run(
        r#"SELECT realtime.add_source('odd', 'trade."o""; DROP TABLE x; --"', 'reader', fields => ARRAY['a''b"c$$', 'moods', 'pair', 'pairs'])"#,
    )
    .await;
    execute(
        &mut admin,
        &format!(
            r#"SET ROLE {evil}; SET search_path = evil, pg_temp, pg_catalog;
             INSERT INTO trade."o""; DROP TABLE x; --" VALUES (1, 'good', '{ANN}', '{{good,NULL}}', DEFAULT, ARRAY[('bad', 'x')::evil.pair]),
                 (2, 'bad', '{ANN}', NULL, NULL, '{{}}');
             UPDATE trade."o""; DROP TABLE x; --" SET id = id + 10, "a'b""c$$" = 'worse';
             DELETE FROM trade."o""; DROP TABLE x; --" WHERE id = 11;
             RESET ROLE; RESET search_path"#
        ),
    )
    .await;
    let events: Vec<String> = sqlx::query_scalar(
        r#"SELECT concat_ws(' ', payload::json ->> 'op', payload::json -> 'key' ->> 'id', payload::json -> 'row' ->> 'a''b"c$$')
           FROM realtime.events WHERE kind = 'odd' ORDER BY id"#,
    )
    .fetch_all(&mut shop.owner)
    .await
    .unwrap();
    assert_eq!(
        events,
        [
            "insert 1 good",
            "insert 2 bad",
            "delete 1",
            "delete 2",
            "insert 11 worse",
            "insert 12 worse",
            "delete 11"
        ]
    );
    let rows: Vec<serde_json::Value> = sqlx::query_scalar(
        "SELECT (payload::jsonb -> 'row') - $1 FROM realtime.events WHERE payload::json ->> 'op' = 'insert' ORDER BY id LIMIT 2",
    )
    .bind(r#"a'b"c$$"#)
    .fetch_all(&mut shop.owner)
    .await
    .unwrap();
    assert_eq!(
        rows,
        [
            serde_json::json!({"moods": ["good", null], "pair": r#"(bad,"a ""b""")"#, "pairs": ["(bad,x)"]}),
            serde_json::json!({"moods": null, "pair": null, "pairs": []}),
        ]
    );
    let called: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT concat_ws(' ', by, what) FROM trade.called ORDER BY 1")
            .fetch_all(&mut admin)
            .await
            .unwrap();
    assert_eq!(called, [""; 0]);
}

/// REASSIGN OWNED moves the table and its function, and no right. What cannot be written is no reason to fail the statement.
#[tokio::test]
async fn rights_that_are_gone_are_granted_again() {
    let (mut shop, mut admin, merchant) = of_another_owner().await;
    let log = shop.database.log(1);
    assert_eq!(log.trigger_faults().await.unwrap(), []);
    execute(
        &mut admin,
        &format!(
            "CREATE ROLE heir_{merchant}; GRANT heir_{merchant} TO hushnet_owner; GRANT USAGE ON SCHEMA trade TO heir_{merchant};
             REASSIGN OWNED BY {merchant} TO heir_{merchant}; INSERT INTO trade.members VALUES (1, '{ANN}');
             INSERT INTO trade.orders VALUES (1, 1, 'new'), (2, 2, 'of nobody')"
        ),
    )
    .await;
    let faults = log.trigger_faults().await.unwrap();
    let named: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["trade.orders: rights"]);
    let kinds = "SELECT count(*) FROM realtime.events WHERE kind = ";
    assert_eq!(shop.number(&format!("{kinds} 'event_failed'")).await, 0);
    // Who has read on meanwhile has missed an event, and is reset.
    shop.database.up().await;
    assert_eq!(shop.number(&format!("{kinds} 'event_failed'")).await, 1);
    assert_eq!(log.trigger_faults().await.unwrap(), []);
    execute(&mut admin, "INSERT INTO trade.orders VALUES (3, 1, 'new')").await;
    assert_eq!(shop.number(&format!("{kinds} 'order'")).await, 1);
    shop.database.up().await;
    assert_eq!(shop.number(&format!("{kinds} 'event_failed'")).await, 1);
}

/// What a condition is does not depend on who writes.
#[tokio::test]
async fn the_writer_s_settings_do_not_change_the_condition() {
    let mut shop = Shop::open().await;
    shop.run(
        r"CREATE TABLE posts (id int PRIMARY KEY, reader uuid, body text);
          SELECT realtime.add_source('post', 'posts', 'reader', condition => 'NEW.body !~ ''^\d+$'' AND (NEW.id = NULL) IS NULL')",
    )
    .await;
    let mut writer = shop.database.connect().await;
    execute(
        &mut writer,
        &format!(
            "SET standard_conforming_strings = off; SET transform_null_equals = on;
             INSERT INTO posts VALUES (1, '{ANN}', 'ddd'), (2, '{ANN}', '123')"
        ),
    )
    .await;
    let keys =
        "SELECT string_agg(payload::json -> 'key' ->> 'id', ' ')::bigint FROM realtime.events";
    assert_eq!(shop.number(keys).await, 1);
}
