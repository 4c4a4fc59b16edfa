//! What an event shows: of an update what has changed, of a deletion the key, and the key that was named.

use serde_json::{Value, json};

use super::{ANN, BEN, Shop};

impl Shop {
    /// The events of the statement: user, operation, and what they show besides.
    async fn shown(&mut self, statement: &str) -> Vec<Value> {
        let last = self.last_id().await;
        self.run(statement).await;
        let mut shown = Vec::new();
        for (_, mut event) in self.events_after(last).await {
            let members = event.as_object_mut().unwrap();
            members.remove("type");
            shown.push(event);
        }
        shown
    }
}

const ORDERS: &str =
    "CREATE TABLE orders (id int PRIMARY KEY, buyer uuid, status text, total numeric, note text)";

#[tokio::test]
async fn an_update_shows_what_has_changed_and_is_no_event_where_nothing_has() {
    for form in ["", "for_rows => true, "] {
        let mut shop = Shop::open().await;
        shop.run(ORDERS).await;
        let add = format!(
            "SELECT realtime.add_source('order', 'orders', 'buyer', {form}changed => true, fields => '{{status,total}}')"
        );
        shop.run(&add).await;
        let event = |user: &str, op: &str, rest: Value| {
            let mut event = json!({"user_id": user, "op": op, "key": {"id": 1}});
            for (name, value) in rest.as_object().unwrap() {
                event[name] = value.clone();
            }
            event
        };
        for (statement, expected) in [
            (
                format!("INSERT INTO orders VALUES (1, '{ANN}', 'new', 5, 'x')"),
                vec![event(
                    ANN,
                    "insert",
                    json!({"row": {"status": "new", "total": 5}}),
                )],
            ),
            (
                "UPDATE orders SET status = 'paid', note = 'y'".to_owned(),
                vec![event(ANN, "update", json!({"changed": {"status": "paid"}}))],
            ),
            (
                "UPDATE orders SET note = 'z', status = 'paid'".to_owned(),
                vec![],
            ),
            (
                "UPDATE orders SET status = NULL, total = 6".to_owned(),
                vec![event(
                    ANN,
                    "update",
                    json!({"changed": {"status": null, "total": 6}}),
                )],
            ),
            (
                format!("UPDATE orders SET buyer = '{BEN}'"),
                vec![
                    event(BEN, "insert", json!({"row": {"status": null, "total": 6}})),
                    event(ANN, "delete", json!({})),
                ],
            ),
            (
                "DELETE FROM orders".to_owned(),
                vec![event(BEN, "delete", json!({}))],
            ),
        ] {
            assert_eq!(shop.shown(&statement).await, expected, "{statement} {form}");
        }
    }
}

/// Where one user of many comes and goes, nobody else gets an event of what has not changed.
#[tokio::test]
async fn who_keeps_a_row_that_has_not_changed_gets_no_event() {
    let mut shop = Shop::open().await;
    shop.run(
        "CREATE TABLE rooms (id int PRIMARY KEY, members uuid[], title text);
         SELECT realtime.add_source('room', 'rooms', 'SELECT unnest(NEW.members)', changed => true, fields => '{title}')",
    )
    .await;
    shop.run(&format!("INSERT INTO rooms VALUES (1, '{{{ANN}}}', 'one')"))
        .await;
    let last = shop.last_id().await;
    shop.events_after(last - 1).await;
    let events = shop
        .shown(&format!("UPDATE rooms SET members = '{{{ANN},{BEN}}}'"))
        .await;
    assert_eq!(
        events,
        [json!({"user_id": BEN, "op": "insert", "key": {"id": 1}, "row": {"title": "one"}})]
    );
    let events = shop
        .shown(&format!(
            "UPDATE rooms SET members = '{{{ANN}}}', title = 'two'"
        ))
        .await;
    assert_eq!(
        events,
        [
            json!({"user_id": ANN, "op": "update", "key": {"id": 1}, "changed": {"title": "two"}}),
            json!({"user_id": BEN, "op": "delete", "key": {"id": 1}}),
        ]
    );
}

/// A table without a primary key has the one that is named. Where rows may share it, each is an event of its own.
#[tokio::test]
async fn a_key_is_the_one_that_is_named() {
    for (constraint, statements) in [("", 0), ("UNIQUE", 0), ("NOT NULL UNIQUE", 3)] {
        let mut shop = Shop::open().await;
        let table = format!(
            "CREATE TABLE notes (slug text {constraint}, owner uuid, body text);
             SELECT realtime.add_source('note', 'notes', 'owner', keys => '{{slug}}', fields => '{{body}}')"
        );
        shop.run(&table).await;
        let of_statements = "SELECT count(*) FROM pg_trigger WHERE tgname ~ '^realtime_source_16_'";
        assert_eq!(shop.number(of_statements).await, statements, "{constraint}");
        let events = shop
            .shown(&format!(
                "INSERT INTO notes VALUES ('a', '{ANN}', 'x'); UPDATE notes SET slug = 'b', body = 'y'"
            ))
            .await;
        let expected = [
            json!({"user_id": ANN, "op": "insert", "key": {"slug": "a"}, "row": {"body": "x"}}),
            json!({"user_id": ANN, "op": "delete", "key": {"slug": "a"}}),
            json!({"user_id": ANN, "op": "insert", "key": {"slug": "b"}, "row": {"body": "y"}}),
        ];
        assert_eq!(events, expected, "{constraint}");
    }
}

/// What a constraint checks at the end of the transaction is no event before that, and none if it fails.
#[tokio::test]
async fn deferred_constraints_are_those_of_the_transaction() {
    let mut shop = Shop::open().await;
    shop.run(
        "CREATE TABLE lists (id int PRIMARY KEY);
         CREATE TABLE items (pos int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, owner uuid, body text,
             list int REFERENCES lists DEFERRABLE INITIALLY DEFERRED);
         SELECT realtime.add_source('item', 'items', 'owner', fields => '{body}')",
    )
    .await;
    let item = |op: &str, pos: i32, body: &str| json!({"user_id": ANN, "op": op, "key": {"pos": pos}, "row": {"body": body}});
    let events = shop
        .shown(&format!(
            "BEGIN; INSERT INTO items VALUES (1, '{ANN}', 'a', 7), (2, '{ANN}', 'b', 7); INSERT INTO lists VALUES (7); COMMIT"
        ))
        .await;
    assert_eq!(events, [item("insert", 1, "a"), item("insert", 2, "b")]);
    // Keys that change places are rows that have changed.
    let events = shop.shown("UPDATE items SET pos = 3 - pos").await;
    let mut events: Vec<_> = events.iter().map(ToString::to_string).collect();
    events.sort_unstable();
    let expected = [item("update", 1, "b"), item("update", 2, "a")];
    assert_eq!(events, expected.map(|event| event.to_string()));
    let last = shop.last_id().await;
    let refused = shop
        .refused(&format!("INSERT INTO items VALUES (3, '{ANN}', 'c', 8)"))
        .await;
    assert!(refused.contains("foreign key"), "{refused}");
    assert_eq!(shop.last_id().await, last);
}
