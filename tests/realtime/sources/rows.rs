//! Which statement makes which events: the row as it was and the row as it is are both judged, and paired by their key.

use hushnet_realtime::store::migrate;

use super::Shop;
use crate::support::{Database, execute};

const ANN: &str = "00000000-0000-0000-0000-00000000000a";
const BEN: &str = "00000000-0000-0000-0000-00000000000b";
const CAT: &str = "00000000-0000-0000-0000-00000000000c";

/// Teams of users, and their tasks. A draft concerns nobody.
const TASKS: &str = "
    CREATE TABLE members (team int, member uuid);
    CREATE TABLE tasks (id int PRIMARY KEY, team int, title text, draft boolean DEFAULT false) $form;
    $more
    SELECT realtime.add_source('task', 'tasks', 'SELECT member FROM public.members WHERE team = NEW.team',
        fields => '{title}', condition => 'NOT NEW.draft');
    $after";

/// The same table in each form that a trigger has.
const FORMS: [(&str, &str, &str); 3] = [
    ("", "", ""),
    (
        "PARTITION BY RANGE (id)",
        "CREATE TABLE later (draft boolean, title text, id int NOT NULL, team int);
         ALTER TABLE tasks ATTACH PARTITION later FOR VALUES FROM (100) TO (MAXVALUE);
         CREATE TABLE tasks_1 PARTITION OF tasks FOR VALUES FROM (MINVALUE) TO (100);",
        "",
    ),
    (
        "",
        "",
        "CREATE TABLE more_tasks () INHERITS (tasks); SELECT realtime.repair_triggers()",
    ),
];

impl Shop {
    async fn tasks(form: usize) -> Self {
        let mut shop = Self::open().await;
        let (form, more, after) = FORMS[form];
        let tasks = TASKS.replace("$form", form).replace("$more", more);
        let tasks = tasks.replace("$after", after);
        shop.run(&tasks).await;
        let members = format!(
            "INSERT INTO members VALUES (1, '{ANN}'), (1, '{BEN}'), (2, '{BEN}'), (2, '{CAT}')"
        );
        shop.run(&members).await;
        shop
    }

    /// What the statement is to whom, as `insert a 1 title`: the operation, the last letter of the user, the key and the
    /// title. In the order of rows; of one row in the order of users.
    async fn told(&mut self, statement: &str) -> Vec<String> {
        let last = self.last_id().await;
        self.run(statement).await;
        let mut told = Vec::new();
        for (_, event) in self.events_after(last).await {
            let [op, user, title] = [&event["op"], &event["user_id"], &event["row"]["title"]]
                .map(|value| value.as_str().unwrap_or("-"));
            told.push((
                event["key"]["id"].as_i64().unwrap(),
                format!("{} {op} {title}", &user[35..]),
            ));
        }
        told.sort_by(|(one, a), (other, b)| one.cmp(other).then(a.cmp(b)));
        let told = told.into_iter();
        told.map(|(id, event)| format!("{id} {event}")).collect()
    }
}

/// What is done, one statement after another, and what each is to whom.
const STORY: [(&str, &[&str]); 13] = [
    (
        "INSERT INTO tasks VALUES (1, 1, 'one', false), (2, 2, 'two', false), (3, 1, 'three', true), (4, 3, 'nobody', false)",
        &["1 a insert one", "1 b insert one", "2 b insert two", "2 c insert two"],
    ),
    (
        "UPDATE tasks SET title = upper(title)",
        &["1 a update ONE", "1 b update ONE", "2 b update TWO", "2 c update TWO"],
    ),
    // From one team to another: one user loses it, one gains it, and one has it still.
    (
        "UPDATE tasks SET team = 2, title = 'moved' WHERE id = 1",
        &["1 a delete -", "1 b update moved", "1 c insert moved"],
    ),
    // The condition begins to hold, and ends.
    (
        "UPDATE tasks SET draft = false WHERE id = 3",
        &["3 a insert THREE", "3 b insert THREE"],
    ),
    (
        "UPDATE tasks SET draft = true, title = 'secret' WHERE id = 3",
        &["3 a delete -", "3 b delete -"],
    ),
    ("UPDATE tasks SET title = 'more secret' WHERE id = 3", &[]),
    (
        "UPDATE tasks SET draft = NULL WHERE id = 2",
        &["2 b delete -", "2 c delete -"],
    ),
    ("DELETE FROM tasks WHERE id IN (2, 3)", &[]),
    ("UPDATE tasks SET title = '' WHERE false", &[]),
    // Another key is another row.
    (
        "UPDATE tasks SET id = 5 WHERE id = 1",
        &["1 b delete -", "1 c delete -", "5 b insert moved", "5 c insert moved"],
    ),
    (
        "INSERT INTO tasks VALUES (5, 1, 'again'), (6, 1, 'six') ON CONFLICT (id)
             DO UPDATE SET title = excluded.title, team = 1",
        &["5 a insert again", "5 b update again", "5 c delete -", "6 a insert six", "6 b insert six"],
    ),
    (
        "MERGE INTO tasks USING (VALUES (5, 'kept'), (6, NULL), (7, 'seven')) AS v (id, title) ON tasks.id = v.id
             WHEN MATCHED AND v.title IS NULL THEN DELETE
             WHEN MATCHED THEN UPDATE SET title = v.title
             WHEN NOT MATCHED THEN INSERT VALUES (v.id, 1, v.title)",
        &[
            "5 a update kept",
            "5 b update kept",
            "6 a delete -",
            "6 b delete -",
            "7 a insert seven",
            "7 b insert seven",
        ],
    ),
    (
        "WITH gone AS (DELETE FROM tasks WHERE id = 7 RETURNING *), other AS (UPDATE tasks SET title = 'other' WHERE id = 5)
             INSERT INTO tasks SELECT 8, team, title FROM gone",
        &[
            "5 a update other",
            "5 b update other",
            "7 a delete -",
            "7 b delete -",
            "8 a insert seven",
            "8 b insert seven",
        ],
    ),
];

#[tokio::test]
async fn each_user_is_told_what_the_statement_is_to_them() {
    for form in 0..FORMS.len() {
        let mut shop = Shop::tasks(form).await;
        for (statement, expected) in STORY {
            assert_eq!(
                shop.told(statement).await,
                expected,
                "{statement}, form {form}"
            );
        }
    }
}

/// Whoever writes a partition or a child by its own name, or moves a row between partitions, is heard, too.
#[tokio::test]
async fn partitions_and_children_are_of_their_table() {
    let mut shop = Shop::tasks(1).await;
    assert_eq!(
        shop.told("INSERT INTO later (id, team, title, draft) VALUES (100, 1, 'late', false)")
            .await,
        ["100 a insert late", "100 b insert late"]
    );
    assert_eq!(
        shop.told("UPDATE tasks SET id = 9 WHERE id = 100").await,
        [
            "9 a insert late",
            "9 b insert late",
            "100 a delete -",
            "100 b delete -"
        ]
    );
}

/// A table that becomes a partition has triggers of statements, which what is written by its parent's name does not fire:
/// that is a fault, and `migrate up` puts triggers of rows in their place.
#[tokio::test]
async fn a_table_that_becomes_a_partition_is_found_and_repaired() {
    let mut shop = Shop::tasks(0).await;
    assert_eq!(shop.faults().await, [""; 0]);
    shop.run(
        "CREATE TABLE all_tasks (id int, team int, title text, draft boolean) PARTITION BY RANGE (id);
         ALTER TABLE all_tasks ATTACH PARTITION tasks FOR VALUES FROM (0) TO (10)",
    )
    .await;
    assert_eq!(shop.faults().await, ["public.tasks: missing"]);
    let repaired = migrate::up(&shop.database.owner()).await;
    assert_eq!(repaired.unwrap(), ["public.tasks"]);
    assert_eq!(shop.faults().await, [""; 0]);
    assert_eq!(
        shop.triggers().await,
        ["realtime_source_16", "realtime_truncate"]
    );
    assert_eq!(
        shop.told("INSERT INTO all_tasks VALUES (1, 1, 'one', false)")
            .await,
        ["1 a insert one", "1 b insert one"]
    );
    shop.run("ALTER TABLE all_tasks DETACH PARTITION tasks")
        .await;
    assert_eq!(
        shop.told("UPDATE tasks SET title = 'alone'").await,
        ["1 a update alone", "1 b update alone"]
    );
    migrate::up(&shop.database.owner()).await.unwrap();
    assert_eq!(shop.triggers().await.len(), 4);
    assert_eq!(
        shop.told("UPDATE tasks SET title = 'still'").await,
        ["1 a update still", "1 b update still"]
    );
}

/// One command of the transaction has written all rows of the log.
#[tokio::test]
async fn copy_of_many_rows_is_one_insert_into_the_log() {
    let mut shop = Shop::open().await;
    shop.run(
        "CREATE TABLE orders (id int PRIMARY KEY, buyer uuid, status text);
         SELECT realtime.add_source('order', 'orders', 'buyer', fields => '{status}');
         UPDATE realtime.state SET ingest = 'tail'",
    )
    .await;
    let rows = (1..=100_000).map(|number| format!("{number}\t{ANN}\tnew"));
    let rows = rows.collect::<Vec<_>>().join("\n");
    let mut copy = shop
        .owner
        .copy_in_raw("COPY orders FROM STDIN")
        .await
        .unwrap();
    copy.send(rows.as_bytes()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 100_000);
    let events = "SELECT count(*) FROM realtime.log";
    assert_eq!(shop.number(events).await, 100_000);
    let commands = "SELECT count(DISTINCT cmin::text) FROM realtime.log";
    assert_eq!(shop.number(commands).await, 1);
}

/// A statement of many rows is one INSERT into the log, in the order of its rows; above 64 MiB it is several.
#[tokio::test]
async fn many_rows_of_one_statement_are_written_together_and_in_their_order() {
    let mut shop = Shop::tasks(0).await;
    shop.run("UPDATE realtime.state SET ingest = 'tail'").await;
    shop.run("INSERT INTO tasks SELECT n, 1, 'task' FROM generate_series(1, 20000) AS n")
        .await;
    shop.run("UPDATE tasks SET title = 'changed'").await;
    shop.run("UPDATE tasks SET team = 2").await;
    shop.run("INSERT INTO tasks SELECT n, 1, repeat('x', 100000) FROM generate_series(20001, 21500) AS n").await;
    for (op, count) in [("i", 63_000), ("u", 60_000), ("d", 20_000)] {
        let counted = format!("SELECT count(*) FROM realtime.log WHERE op = '{op}'");
        assert_eq!(shop.number(&counted).await, count);
        let disorder = format!(
            "SELECT count(*) FROM (
                 SELECT lag(fields[1]::int) OVER (PARTITION BY xid ORDER BY id) > fields[1]::int AS is_less
                 FROM realtime.log WHERE op = '{op}' AND body IS NULL) AS each WHERE is_less"
        );
        assert_eq!(shop.number(&disorder).await, 0, "{op}");
    }
}

/// A volatile audience is asked once of each row.
#[tokio::test]
async fn the_audience_is_asked_once_of_each_row() {
    let mut shop = Shop::open().await;
    shop.run(&format!(
        "CREATE TABLE posts (id int PRIMARY KEY); CREATE SEQUENCE asked;
         SELECT realtime.add_source('post', 'posts', $$
             SELECT '{ANN}'::uuid FROM (SELECT nextval('public.asked')) AS asked WHERE NEW.id > 0 $$)"
    ))
    .await;
    for (statement, asked) in [
        ("INSERT INTO posts VALUES (1), (2), (3)", 3),
        ("UPDATE posts SET id = id + 10", 9),
        ("DELETE FROM posts", 12),
    ] {
        shop.run(statement).await;
        assert_eq!(
            shop.number("SELECT last_value FROM public.asked").await,
            asked,
            "{statement}"
        );
    }
}

/// Its trigger stays, and its function, which may use OLD, until it is added again.
#[tokio::test]
async fn a_source_of_the_schema_before_goes_on_as_it_was() {
    let database = Database::migrated_to(9).await;
    let mut owner = database.connect().await;
    execute(
        &mut owner,
        &format!(
            "CREATE TABLE posts (id int PRIMARY KEY, reader uuid, status text);
             SELECT realtime.add_source('post', 'posts', 'reader', fields => '{{status}}',
                 condition => 'OLD.status IS DISTINCT FROM NEW.status');
             INSERT INTO posts VALUES (1, '{ANN}', 'new')"
        ),
    )
    .await;
    drop(owner);
    assert_eq!(migrate::up(&database.owner()).await.unwrap(), [""; 0]);
    let mut shop = Shop::of(database).await;
    let ops = "SELECT count(*) FROM realtime.events WHERE payload::json ->> 'op' = 'update'";
    shop.run("UPDATE posts SET reader = reader; UPDATE posts SET status = 'read'")
        .await;
    assert_eq!(shop.number(ops).await, 1);
    assert_eq!(shop.faults().await, [""; 0]);
    let of_source = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'realtime_source_%'";
    assert_eq!(shop.number(of_source).await, 1);
    shop.run("SELECT realtime.remove_source('post'); SELECT realtime.add_source('post', 'posts', 'reader')")
        .await;
    assert_eq!(shop.number(of_source).await, 3);
    shop.run("UPDATE posts SET reader = reader").await;
    assert_eq!(shop.number(ops).await, 2);
    migrate::down(&shop.database.owner()).await.unwrap();
}

/// A user that is null would be all users, so that no text of a condition may let such a row through.
#[tokio::test]
async fn a_row_of_nobody_is_nobody_s_whatever_the_condition_is() {
    let mut shop = Shop::open().await;
    shop.run(
        "CREATE TABLE posts (id int PRIMARY KEY, reader uuid);
         SELECT realtime.add_source('post', 'posts', 'reader', condition => 'true) OR (true')",
    )
    .await;
    let story =
        format!("INSERT INTO posts VALUES (1, NULL), (2, '{ANN}'); UPDATE posts SET reader = NULL");
    shop.run(&story).await;
    let of_somebody = "SELECT count(*) FROM realtime.log WHERE user_key IS NOT NULL";
    assert_eq!(shop.number(of_somebody).await, 2);
    assert_eq!(shop.number("SELECT count(*) FROM realtime.log").await, 2);
}

/// Tables whose rows one statement may write twice: what a user is told last is what has become of the row.
const TWICE: [(&str, &str, &[&str]); 3] = [
    // Two foreign keys to the same row.
    (
        "CREATE TABLE teams (id int PRIMARY KEY);
         CREATE TABLE tasks (id int PRIMARY KEY, team uuid, title text,
             a int REFERENCES teams ON DELETE SET NULL, b int REFERENCES teams ON DELETE CASCADE);
         INSERT INTO teams VALUES (1), (2)",
        "DELETE FROM teams",
        &["1 a insert", "1 a update", "1 a delete"],
    ),
    // A trigger of the application's that writes the row again, and sorts after ours.
    (
        "CREATE TABLE tasks (id int PRIMARY KEY, team uuid, title text, a int, b int);
         CREATE FUNCTION title() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN UPDATE tasks SET title = 'titled' WHERE id = NEW.id; RETURN NULL; END $$;
         CREATE TRIGGER titles AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION title()",
        "DELETE FROM tasks",
        &["1 a insert", "1 a update", "1 a delete"],
    ),
    // One key in two spellings.
    (
        "CREATE TABLE tasks (id numeric PRIMARY KEY, team uuid, title text, a int, b int)",
        "UPDATE tasks SET id = 1.0",
        &["1 a insert", "1 a delete", "1 a insert"],
    ),
];

#[tokio::test]
async fn what_a_user_is_told_last_is_what_has_become_of_the_row() {
    for (tables, statement, expected) in TWICE {
        let mut shop = Shop::open().await;
        shop.run(tables).await;
        shop.run("SELECT realtime.add_source('task', 'tasks', 'team')")
            .await;
        shop.run(&format!(
            "INSERT INTO tasks VALUES (1, '{ANN}', 'new', 1, 2)"
        ))
        .await;
        shop.run(statement).await;
        let told: Vec<_> = shop.events_after(0).await;
        let told: Vec<_> = told
            .iter()
            .map(|(_, event)| {
                let id = event["key"]["id"].as_f64().unwrap();
                let op = event["op"].as_str().unwrap();
                format!("{id} {} {op}", &event["user_id"].as_str().unwrap()[35..])
            })
            .collect();
        assert_eq!(told, expected, "{tables}");
    }
}

/// Who makes a partitioned table of a table often changes its key: the events keep the members that they had.
#[tokio::test]
async fn a_key_that_has_changed_since_moves_no_value_to_another_name() {
    let mut shop = Shop::open().await;
    shop.run(
        "CREATE TABLE orders (id int, at int NOT NULL DEFAULT 1, reader uuid, secret text,
             status text, PRIMARY KEY (id) INCLUDE (secret));
         SELECT realtime.add_source('order', 'orders', 'reader', fields => '{status}');
         ALTER TABLE orders DROP CONSTRAINT orders_pkey; ALTER TABLE orders ADD PRIMARY KEY (id, at);
         ALTER TABLE orders RENAME TO former;
         CREATE TABLE orders (LIKE former, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         ALTER TABLE orders ATTACH PARTITION former FOR VALUES FROM (0) TO (10);
         SELECT realtime.repair_triggers()",
    )
    .await;
    let insert = format!("INSERT INTO orders VALUES (3, 2, '{ANN}', 'never shown', 'new')");
    shop.run(&insert).await;
    let events = shop.events_after(0).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].1["key"], serde_json::json!({"id": 3}));
    assert_eq!(events[0].1["row"], serde_json::json!({"status": "new"}));
}
