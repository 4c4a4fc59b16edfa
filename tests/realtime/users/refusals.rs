//! What is no user of the database's type, and sources whose users are of none.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{ADD_ORDERS, NUMBERS, TEXTS, UUIDS, encoded, quoted, scalar, shop};
use crate::identity::{self, Key};
use crate::support::{Database, Server, execute};

async fn refused(owner: &mut PgConnection, statement: &str) -> String {
    let refused = sqlx::raw_sql(AssertSqlSafe(statement)).execute(owner).await;
    refused.expect_err(statement).to_string()
}

#[tokio::test]
async fn an_id_of_another_form_is_refused_and_the_answer_names_the_type() {
    let long = "x".repeat(256);
    for (users, wrong, named) in [
        (UUIDS, vec!["42", "alice", ""], "must be a UUID"),
        (
            NUMBERS,
            vec![
                "042",
                "+42",
                "-0",
                "4.2",
                "9223372036854775808",
                "alice",
                "",
                UUIDS.ann,
            ],
            "must be a bigint",
        ),
        (TEXTS, vec!["", "a\0b", &long], "text of 1 to 255 bytes"),
    ] {
        let (database, mut owner) = shop(users.column).await;
        execute(&mut owner, ADD_ORDERS).await;
        let server = Server::start_on(database, |_| {}).await;
        for id in wrong {
            for path in ["/ws?user_id=", "/ws/"] {
                if id.is_empty() && path == "/ws/" {
                    continue;
                }
                let answer = server.get(&format!("{path}{}", encoded(id))).await;
                assert_eq!(answer.status, 400, "{id:?}: {}", answer.body);
                assert!(answer.body.contains("user_id_malformed"), "{}", answer.body);
                assert!(answer.body.contains(named), "{}", answer.body);
                assert!(answer.body.len() < 400, "{}", answer.body);
            }
        }
        // What is no UTF-8 is nobody's id.
        for path in ["/ws/%ff", "/ws?user_id=%ff"] {
            let answer = server.get(path).await;
            assert_eq!(answer.status, 400, "{}", answer.body);
            assert!(answer.body.contains("user_id_malformed"), "{}", answer.body);
        }
        let answer = server
            .get(&format!("/ws?user_id={}", encoded(users.ann)))
            .await;
        assert_eq!(answer.status, 426, "{}", answer.body);
    }
}

#[tokio::test]
async fn a_row_whose_text_is_no_user_s_id_is_written_and_its_event_has_failed() {
    let (database, mut owner) = shop("text").await;
    execute(&mut owner, ADD_ORDERS).await;
    for (key, id) in [(3, ""), (4, &*"é".repeat(128))] {
        let insert = format!("INSERT INTO orders VALUES ({key}, {}, 1)", quoted(id));
        execute(&mut owner, &insert).await;
        let failed = "SELECT count(*) FROM realtime.log WHERE kind = 'event_failed'";
        let failed: i64 = scalar(&mut owner, failed).await;
        assert_eq!(failed, key - 2);
    }
    let fits = "é".repeat(127) + "x";
    let insert = format!(
        "INSERT INTO orders VALUES (1, {}, 1), (2, NULL, 1)",
        quoted(&fits)
    );
    execute(&mut owner, &insert).await;
    let events = "SELECT count(*) FROM realtime.log WHERE source IS NOT NULL";
    let events: i64 = scalar(&mut owner, events).await;
    assert_eq!(events, 1);
    drop(database);
}

#[tokio::test]
async fn citext_and_nondeterministic_collations_are_refused_by_name() {
    let (database, mut owner) = shop("text").await;
    let collations = "
        CREATE SCHEMA shop;
        CREATE COLLATION shop.unaccented (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
        CREATE TABLE shop.people (id int PRIMARY KEY, a text COLLATE shop.unaccented, b text COLLATE \"C\",
            c shop.folded, d char(5), e numeric, f json, i text[], j uuid[])";
    execute(
        &mut owner,
        "CREATE SCHEMA IF NOT EXISTS shop;
         CREATE COLLATION shop.unaccented (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
         CREATE DOMAIN shop.folded AS text COLLATE shop.unaccented",
    )
    .await;
    let table = collations.rsplit_once("CREATE TABLE").unwrap().1;
    execute(&mut owner, &format!("CREATE TABLE{table}")).await;
    let add =
        |audience: &str| format!("SELECT realtime.add_source('seen', 'shop.people', '{audience}')");
    for (audience, named) in [
        ("a", "shop.unaccented"),
        ("c", "shop.unaccented"),
        ("SELECT NEW.a", "shop.unaccented"),
        ("SELECT NEW.b COLLATE shop.unaccented", "shop.unaccented"),
        ("d", "character"),
        ("e", "numeric"),
        ("SELECT NEW.f", "json"),
        ("i", "arrays (text[])"),
        ("j", "arrays (uuid[])"),
        ("SELECT ARRAY[NEW.b]", "arrays (text[])"),
    ] {
        let error = refused(&mut owner, &add(audience)).await;
        assert!(error.contains(named), "{error}");
    }
    let has_citext = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citext')";
    if scalar(&mut owner, has_citext).await {
        let citext =
            "CREATE EXTENSION citext SCHEMA shop; ALTER TABLE shop.people ADD g shop.citext;
            CREATE DOMAIN shop.nick AS shop.citext; ALTER TABLE shop.people ADD h shop.nick";
        execute(&mut owner, citext).await;
        for audience in ["g", "h", "SELECT NEW.g"] {
            let error = refused(&mut owner, &add(audience)).await;
            assert!(error.contains("citext"), "{error}");
        }
    }
    let none: Option<String> = scalar(&mut owner, "SELECT user_type FROM realtime.state").await;
    assert_eq!(none, None, "a refused source fixes nothing");
    // Its bytes are what is compared.
    for audience in ["SELECT NEW.a COLLATE \"C\"", "b", "SELECT unnest(NEW.i)"] {
        execute(&mut owner, &add(audience)).await;
        execute(&mut owner, "SELECT realtime.remove_source('seen')").await;
    }
    drop(database);
}

#[tokio::test]
async fn a_source_of_another_type_than_the_first_is_refused_until_none_is_left() {
    let (database, mut owner) = shop("bigint").await;
    execute(&mut owner, ADD_ORDERS).await;
    execute(
        &mut owner,
        "CREATE TABLE teams (id int PRIMARY KEY, lead uuid, name text)",
    )
    .await;
    for audience in ["lead", "name"] {
        let add = format!("SELECT realtime.add_source('team', 'teams', '{audience}')");
        let error = refused(&mut owner, &add).await;
        assert!(
            error.contains("those of this database are of type bigint"),
            "{error}"
        );
    }
    // An old snapshot does not see what another session has added.
    let old = "BEGIN ISOLATION LEVEL REPEATABLE READ;
        INSERT INTO realtime.sources (kind, relation, audience) VALUES ('team', 'public.teams', 'lead')";
    let error = refused(&mut owner, old).await;
    assert!(error.contains("READ COMMITTED"), "{error}");
    execute(&mut owner, "ROLLBACK").await;
    // A query may give ids of the database's type.
    let add = "SELECT realtime.add_source('team', 'teams', 'SELECT length(NEW.name)')";
    execute(&mut owner, add).await;
    let forget = "SELECT realtime.remove_source('team'); SELECT realtime.remove_source('order');
        DELETE FROM realtime.sources";
    execute(&mut owner, forget).await;
    execute(
        &mut owner,
        "SELECT realtime.add_source('team', 'teams', 'name')",
    )
    .await;
    let user_type: String = scalar(&mut owner, "SELECT user_type FROM realtime.state").await;
    assert_eq!(user_type, "text");
    drop(database);
}

#[tokio::test]
async fn the_preset_fixes_uuid_and_is_not_installed_beside_users_of_another_type() {
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    let user_type: String = scalar(&mut owner, "SELECT user_type FROM realtime.state").await;
    assert_eq!(user_type, "uuid");
    execute(
        &mut owner,
        "CREATE TABLE teams (id int PRIMARY KEY, lead bigint)",
    )
    .await;
    let error = refused(
        &mut owner,
        "SELECT realtime.add_source('team', 'teams', 'lead')",
    )
    .await;
    assert!(error.contains("are of type uuid"), "{error}");

    let (database, mut owner) = shop("bigint").await;
    execute(&mut owner, ADD_ORDERS).await;
    let devices = "CREATE TABLE devices (id uuid PRIMARY KEY, user_id uuid, identity_pubkey text)";
    execute(&mut owner, devices).await;
    database.up().await;
    let url = database.owner();
    let sources = hushnet_realtime::store::migrate::sources(&url);
    let sources: Vec<_> = sources
        .await
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    let device = "device: no events, its users are uuids, and this database's are of type bigint";
    assert!(sources.iter().any(|source| source == device), "{sources:?}");
}

#[tokio::test]
async fn the_database_is_served_by_the_schema_before_with_uuids() {
    let database = Database::migrated_to(8).await;
    let server = Server::start_on(database, |_| {}).await;
    let answer = server.get("/ws?user_id=42").await;
    assert!(answer.body.contains("must be a UUID"), "{}", answer.body);
}

#[tokio::test]
async fn a_device_of_a_token_is_unknown_where_users_are_no_uuids() {
    let key = Key::p256();
    let (database, mut owner) = shop("text").await;
    execute(&mut owner, ADD_ORDERS).await;
    let server = Server::start_on(database, |config| identity::takes_tokens(config, &key)).await;
    let mut claims = identity::claims_of(&"alice".into());
    claims["device_id"] = UUIDS.ann.into();
    let token = identity::token(&key, &claims);
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    let answer = server.first_response(&request).await;
    assert!(answer.body.contains("device_unknown"), "{}", answer.body);
}
