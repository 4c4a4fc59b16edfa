//! `types`: the shapes of the events as types. That rows of the service have these shapes is shown with the compiler of
//! TypeScript: `clients/typescript/test/service/types.test.ts`.

use crate::cli::{self, outcome};
use crate::support::{Database, execute};

/// Exit code, standard output and standard error.
async fn program(database: &Database, arguments: &[&str]) -> (i32, String, String) {
    outcome(cli::program(arguments).env("DATABASE_URL", database.owner_url())).await
}

const TYPES: [&str; 2] = ["types", "--typescript"];

/// What is written after what every module begins with.
async fn interfaces(database: &Database) -> String {
    let (code, module, error) = program(database, &TYPES).await;
    assert_eq!((code, &*error), (0, ""));
    assert!(module.starts_with("/* eslint-disable */\n"), "{module}");
    let start = module
        .find("\n/** The columns of each kind's `key`. */")
        .unwrap();
    module[start..].to_owned()
}

/// A column of each type.
const TABLE: &str = r#"
    CREATE TYPE mood AS ENUM ('so-so', 'it''s "fine"');
    ALTER TYPE mood ADD VALUE 'bad' BEFORE 'so-so';
    CREATE TYPE nothing AS ENUM ();
    CREATE TYPE place AS (street text, number int);
    CREATE DOMAIN score AS int CHECK (VALUE > 0);
    CREATE DOMAIN required AS score NOT NULL;
    CREATE DOMAIN numbers AS int[];
    CREATE DOMAIN moods AS mood[];
    CREATE TABLE everything (
        id bigint PRIMARY KEY, customer bigint NOT NULL, a_bool bool NOT NULL, a_smallint smallint, an_integer integer NOT NULL,
        a_bigint bigint, a_real real, a_double double precision, a_numeric numeric(10, 2) NOT NULL, a_text text,
        a_varchar varchar(3) NOT NULL, a_char char(3), a_byte "char", a_bytea bytea, a_uuid uuid, a_date date, a_time time,
        a_timetz timetz, a_timestamp timestamp, a_timestamptz timestamptz NOT NULL, an_interval interval, a_json json,
        a_jsonb jsonb NOT NULL, a_mood mood, a_nothing nothing, a_range int4range, a_multirange int4multirange,
        an_array int[] NOT NULL, an_array_of_moods mood[], an_array_of_json jsonb[], an_array_of_ranges int4range[],
        a_place place, an_array_of_places place[], a_score score, a_required required, numbers_of_a_domain numbers,
        an_array_of_numbers numbers[] NOT NULL, an_array_of_moods_of_moods moods[], an_inet inet, a_money money, an_oid oid,
        a_bit bit(3), a_point point, a_vector int2vector, a_store hstore, a_citext citext, an_xml xml, a_name name)"#;

/// The columns of `TABLE` besides `id` and `customer`, as they are written.
const EVERYTHING: &str = r#"  everything: {
    readonly a_bool: boolean;
    readonly a_smallint: number | null;
    readonly an_integer: number;
    readonly a_bigint: Bigint | null;
    readonly a_real: Numeric | null;
    readonly a_double: Numeric | null;
    readonly a_numeric: Numeric;
    readonly a_text: string | null;
    readonly a_varchar: string;
    readonly a_char: string | null;
    readonly a_byte: string | null;
    readonly a_bytea: string | null;
    readonly a_uuid: string | null;
    readonly a_date: string | null;
    readonly a_time: string | null;
    readonly a_timetz: string | null;
    readonly a_timestamp: string | null;
    readonly a_timestamptz: string;
    readonly an_interval: string | null;
    readonly a_json: unknown;
    readonly a_jsonb: unknown;
    readonly a_mood: 'bad' | 'so-so' | 'it\'s "fine"' | null;
    readonly a_nothing: never | null;
    readonly a_range: string | null;
    readonly a_multirange: string | null;
    readonly an_array: readonly (number | null)[];
    readonly an_array_of_moods: readonly ('bad' | 'so-so' | 'it\'s "fine"' | null)[] | null;
    readonly an_array_of_json: readonly unknown[] | null;
    readonly an_array_of_ranges: readonly (string | null)[] | null;
    readonly a_place: string | null;
    readonly an_array_of_places: readonly (string | null)[] | null;
    readonly a_score: number | null;
    readonly a_required: number;
    readonly numbers_of_a_domain: readonly (number | null)[] | null;
    readonly an_array_of_numbers: readonly (readonly (number | null)[] | null)[];
    readonly an_array_of_moods_of_moods: readonly (string | null)[] | null;
    readonly an_inet: string | null;
    readonly a_money: string | null;
    readonly an_oid: string | null;
    readonly a_bit: string | null;
    readonly a_point: string | null;
    readonly a_vector: readonly (number | null)[] | null;
    readonly a_store: unknown;
    readonly a_citext: string | null;
    readonly an_xml: string | null;
    readonly a_name: string | null;
  };
"#;

#[tokio::test]
async fn each_column_has_the_type_that_its_json_has() {
    let database = Database::empty().await;
    database.up().await;
    let extensions = "CREATE EXTENSION hstore; CREATE EXTENSION citext";
    execute(&mut database.admin().await, extensions).await;
    execute(&mut database.connect().await, TABLE).await;
    let columns = EVERYTHING.lines().filter_map(|line| {
        let (name, _) = line.trim().strip_prefix("readonly ")?.split_once(':')?;
        Some(name)
    });
    let fields = columns.collect::<Vec<_>>().join(",");
    let attach = ["attach", "everything", "--user", "customer", "--fields"];
    let (code, _, error) = program(&database, &[&attach[..], &[&fields]].concat()).await;
    assert_eq!(code, 0, "{error}");
    let written = interfaces(&database).await;
    let start = written
        .find("  everything: {\n    readonly a_bool")
        .unwrap();
    let end = written.find("}\n\n/** The events by").unwrap();
    assert_eq!(&written[start..end], EVERYTHING);
}

const SHOP: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, buyer uuid, status text NOT NULL, total numeric);
    CREATE TABLE notes (slug text, number int, reader uuid NOT NULL, PRIMARY KEY (slug, number));
    CREATE TABLE members (team int, member uuid, joined date)";

const ATTACH: [&[&str]; 3] = [
    &[
        "attach",
        "orders",
        "--user",
        "buyer",
        "--kind",
        "shop.order",
        "--fields",
        "status,total",
        "--changed",
    ],
    &[
        "attach",
        "notes",
        "--user",
        "reader",
        "--on",
        "insert,delete",
    ],
    &[
        "attach",
        "members",
        "--user",
        "member",
        "--key",
        "team,member",
        "--fields",
        "joined",
        "--on",
        "delete,insert",
    ],
];

/// HushNet's kinds, and three of the shop's. `shop.order` shows what has changed. The key of `notes` may be too long. The
/// columns of the key of `members` may be null.
const SHAPES: &str = "
/** The columns of each kind's `key`. */
export interface Keys {
  /** public.members */
  members: {
    readonly team: number | null;
    readonly member: string | null;
  };
  /** public.notes */
  notes: {
    readonly slug: string;
    readonly number: number;
  };
  /** public.orders */
  'shop.order': {
    readonly id: Bigint;
  };
}

/** The columns of each kind's `row`. */
export interface Rows {
  /** public.members */
  members: {
    readonly joined: string | null;
  };
  /** public.orders */
  'shop.order': {
    readonly status: string;
    readonly total: Numeric | null;
  };
}

/** The events by their `type`. */
export interface Events {
  /** public.devices */
  device: EventBase<'device'>;
  /** public.members */
  members:
    | RowEvent<'members', 'insert'>
    | KeyEvent<'members', 'delete'>
    | TruncatedEvent<'members', 'insert'>;
  /** public.messages */
  message: EventBase<'message'> & { readonly chat_id: string | null };
  /** public.notes */
  notes:
    | KeyEvent<'notes', 'insert' | 'delete'>
    | TruncatedEvent<'notes', 'insert' | 'delete', LongKey<Keys['notes']>>;
  /** public.pending_sessions */
  pending_session: EventBase<'pending_session'> & {
    readonly recipient_device_id: string;
    readonly sender_device_id: string;
    readonly pending_session_id: string;
    readonly created_at: string | null;
  };
  /** public.sessions */
  session: EventBase<'session'> & { readonly sender_device_id: string; readonly receiver_device_id: string };
  /** public.orders */
  'shop.order':
    | RowEvent<'shop.order', 'insert'>
    | ChangedEvent<'shop.order', 'update'>
    | KeyEvent<'shop.order', 'delete'>
    | TruncatedEvent<'shop.order', 'insert' | 'update'>;
}
";

async fn shop() -> Database {
    let database = Database::migrated().await;
    execute(&mut database.connect().await, SHOP).await;
    for attach in ATTACH {
        let (code, _, error) = program(&database, attach).await;
        assert_eq!(code, 0, "{error}");
    }
    database
}

#[tokio::test]
async fn each_kind_has_the_forms_of_its_events() {
    let database = shop().await;
    assert_eq!(interfaces(&database).await, SHAPES);
    // Retired and added in another order, they are the same.
    for kind in ["members", "notes", "shop.order"] {
        assert_eq!(program(&database, &["detach", kind]).await.0, 0);
    }
    for attach in ATTACH {
        assert_eq!(program(&database, attach).await.0, 0);
    }
    assert_eq!(interfaces(&database).await, SHAPES);
}

#[tokio::test]
async fn a_file_is_written_and_compared() {
    let database = shop().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.ts");
    let name = path.to_str().unwrap();
    let write = [&TYPES[..], &["--out", name]].concat();
    let check = [&write[..], &["--check"]].concat();
    let (code, said, error) = program(&database, &check).await;
    assert_eq!(code, 1, "{error}");
    assert!(
        said.starts_with("@@ line 1 @@\n+/* eslint-disable */\n"),
        "{said}"
    );
    assert!(!path.exists());

    let nothing = (0, String::new(), String::new());
    assert_eq!(program(&database, &write).await, nothing);
    assert_eq!(program(&database, &check).await, nothing);
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(program(&database, &TYPES).await.1, written);
    // As Git checks it out on another system.
    std::fs::write(&path, written.replace('\n', "\r\n")).unwrap();
    assert_eq!(program(&database, &check).await, nothing);

    let alter = "ALTER TABLE orders ALTER status DROP NOT NULL";
    execute(&mut database.connect().await, alter).await;
    let (code, said, error) = program(&database, &check).await;
    assert_eq!(code, 1);
    let line = said.lines().next().unwrap();
    let expected =
        format!("{line}\n-    readonly status: string;\n+    readonly status: string | null;\n");
    assert_eq!(said, expected);
    let remedy = format!("write it again with `hushnet-realtime types --typescript --out {name}`");
    assert!(error.contains(&remedy), "{error}");
    assert_eq!(program(&database, &write).await, nothing);
    assert_eq!(program(&database, &check).await, nothing);
}

#[tokio::test]
async fn what_cannot_be_typed_is_named() {
    let database = shop().await;
    for (arguments, said) in [
        (&["types"][..], "--typescript"),
        (&["types", "--typescript", "--check"], "--out <FILE>"),
    ] {
        let (code, _, error) = program(&database, arguments).await;
        assert_eq!(code, 2);
        assert!(error.contains(said), "{error}");
    }
    let missing = ["types", "--typescript", "--out", "/nowhere/events.ts"];
    let (code, _, error) = program(&database, &missing).await;
    assert_eq!(code, 1);
    assert!(error.contains("cannot write /nowhere/events.ts"), "{error}");
    for (alter, said) in [
        (
            "ALTER TABLE orders DROP total",
            "public.orders has no column total",
        ),
        ("DROP TABLE orders", "there is no table public.orders"),
    ] {
        execute(&mut database.connect().await, alter).await;
        let (code, written, error) = program(&database, &TYPES).await;
        assert_eq!((code, &*written), (2, ""), "{error}");
        assert!(
            error.contains(&format!("the source of the kind shop.order: {said}")),
            "{error}"
        );
        assert!(
            error.contains("hushnet-realtime detach shop.order"),
            "{error}"
        );
    }
    let (code, _, error) = program(&Database::empty().await, &TYPES).await;
    assert_eq!(code, 1);
    assert!(
        error.contains("run `hushnet-realtime migrate up` first"),
        "{error}"
    );
}

/// Names that could end a literal, a comment or a line, that change the direction of the text, or that JavaScript uses
/// itself. The compiler of TypeScript reads such names in `types.test.ts`.
#[tokio::test]
async fn a_name_cannot_be_more_than_a_name() {
    let database = Database::empty().await;
    database.up().await;
    let table = "CREATE TABLE \"t*/ evil(); /*\n@x\" (\"'; evil(); //\" int PRIMARY KEY, reader uuid,
         \"a\\\" text, \"b\n\u{2028}\u{202e}\" text, \"__proto__\" text, \"größe\" text, \"1\" text)";
    execute(&mut database.connect().await, table).await;
    let add = "SELECT realtime.add_source('__proto__', '\"t*/ evil(); /*\n@x\"', 'reader',
         fields => ARRAY[E'a\\\\', E'b\\n\u{2028}\u{202e}', '__proto__', 'größe', '1'])";
    execute(&mut database.connect().await, add).await;
    let written = interfaces(&database).await;
    let comment = "  /** public.\"t\\u{2a}\\u{2f} evil\\u{28}\\u{29}\\u{3b} \\u{2f}\\u{2a}\\u{a}\\u{40}x\" */\n";
    let expected = format!(
        "
/** The columns of each kind's `key`. */
export interface Keys {{
{comment}  __proto__: {{
    readonly '\\'; evil(); //': number;
  }};
}}

/** The columns of each kind's `row`. */
export interface Rows {{
{comment}  __proto__: {{
    readonly 'a\\\\': string | null;
    readonly 'b\\u{{a}}\\u{{2028}}\\u{{202e}}': string | null;
    readonly __proto__: string | null;
    readonly 'größe': string | null;
    readonly '1': string | null;
  }};
}}

/** The events by their `type`. */
export interface Events {{
{comment}  __proto__:
    | RowEvent<'__proto__', 'insert' | 'update'>
    | KeyEvent<'__proto__', 'delete'>
    | TruncatedEvent<'__proto__', 'insert' | 'update'>;
}}
"
    );
    assert_eq!(written, expected);
}

/// Such a source keeps its function, which shows the row that is deleted.
#[tokio::test]
async fn a_source_of_the_schema_before_shows_what_it_deletes() {
    let database = Database::migrated_to(9).await;
    let table = "CREATE TABLE tasks (id int PRIMARY KEY, owner uuid, title text);
         SELECT realtime.add_source('task', 'tasks', 'owner', fields => '{title}')";
    execute(&mut database.connect().await, table).await;
    let (code, _, error) = program(&database, &TYPES).await;
    assert_eq!(code, 1);
    assert!(
        error.contains("run `hushnet-realtime migrate up` first"),
        "{error}"
    );
    database.up().await;
    let written = interfaces(&database).await;
    let task = "  task:
    | RowEvent<'task', 'insert' | 'update' | 'delete'>
    | TruncatedEvent<'task', 'insert' | 'update' | 'delete'>;
";
    assert!(written.contains(task), "{written}");
}

/// PostgreSQL 18 has constraints that hold for the rows that are written, and not for those that were there.
#[tokio::test]
async fn a_column_may_be_null_while_its_not_null_is_not_valid() {
    let database = shop().await;
    let mut owner = database.connect().await;
    execute(&mut owner, "ALTER TABLE orders ALTER status DROP NOT NULL").await;
    let version = "SELECT current_setting('server_version_num')::int >= 180000";
    let has_them: bool = sqlx::query_scalar(version)
        .fetch_one(&mut owner)
        .await
        .unwrap();
    if !has_them {
        return;
    }
    let status = async || {
        let written = interfaces(&database).await;
        let line = written.lines().find(|line| line.contains("status:"));
        line.unwrap().trim().to_owned()
    };
    let add = "ALTER TABLE orders ADD CONSTRAINT required NOT NULL status NOT VALID";
    execute(&mut owner, add).await;
    assert_eq!(status().await, "readonly status: string | null;");
    execute(
        &mut owner,
        "ALTER TABLE orders VALIDATE CONSTRAINT required",
    )
    .await;
    assert_eq!(status().await, "readonly status: string;");
}
