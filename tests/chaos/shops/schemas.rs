//! Three schemas: users of each type, an audience of columns and one of a query, a condition, differences, partitions.

/// A table, what is attached of it, and what is done to it.
#[derive(Debug)]
pub struct Schema {
    pub tables: &'static str,
    pub table: &'static str,
    /// What follows `attach <table>`.
    pub attach: &'static [&'static str],
    pub users: &'static [&'static str],
    /// The user `$1`'s rows: the key's values as an array, and what an event shows.
    pub state: &'static str,
    /// What makes its events fail, and what ends that; empty where every statement would fail with them.
    pub breaks: (&'static str, &'static str),
    /// Statements with `{n}` for the number of a row, `{m}` for another, `{u}` and `{v}` for users, `{x}` for a value.
    pub statements: &'static [&'static str],
}

pub const NUMBERS: Schema = Schema {
    tables: "CREATE TABLE orders (id int PRIMARY KEY, customer bigint, seller bigint, status text, total int, secret text)",
    table: "orders",
    attach: &[
        "--kind", "order", "--user", "customer", "--user", "seller", "--fields", "status,total", "--changed", "--when",
        "NEW.status <> 'draft'",
    ],
    users: &["1", "-2", "9007199254740993"],
    state: "SELECT json_build_array(id)::text AS key, json_build_object('status', status, 'total', total)::text AS row
            FROM orders WHERE $1::text::bigint IN (customer, seller) AND status <> 'draft'",
    breaks: ("", ""),
    statements: &[
        "INSERT INTO orders VALUES ({n}, {u}, {v}, 'new', {x}) ON CONFLICT (id) DO UPDATE SET total = excluded.total",
        "INSERT INTO orders SELECT n, {u}, NULL, 'draft', {x} FROM generate_series({n}, {n} + 3) AS n ON CONFLICT DO NOTHING",
        "UPDATE orders SET status = CASE status WHEN 'draft' THEN 'new' WHEN 'new' THEN 'paid' ELSE 'draft' END
             WHERE id BETWEEN {n} AND {n} + 2",
        "UPDATE orders SET secret = '{x}' WHERE id = {n}",
        "UPDATE orders SET customer = {v}, seller = {u}, total = {x} WHERE id = {n}",
        "UPDATE orders SET total = NULL WHERE id = {n}",
        "MERGE INTO orders USING (VALUES ({n}), ({m})) AS v (id) ON orders.id = v.id
             WHEN MATCHED AND orders.total < {x} THEN DELETE WHEN MATCHED THEN UPDATE SET total = {x}
             WHEN NOT MATCHED THEN INSERT VALUES (v.id, {u}, {v}, 'new', {x})",
        "WITH gone AS (DELETE FROM orders WHERE id = {n} RETURNING *) SELECT count(*) FROM gone",
    ],
};

pub const TEAMS: Schema = Schema {
    tables: "CREATE TABLE members (team int, member text, PRIMARY KEY (team, member));
        INSERT INTO members VALUES (1, 'zoë'), (1, 'o''brien \"x\"'), (2, 'zoë'), (3, 'o''brien \"x\"'), (3, '名前');
        CREATE TABLE tasks (id int PRIMARY KEY, team int, title text, done boolean DEFAULT false)",
    table: "tasks",
    attach: &[
        "--kind", "task", "--users", "SELECT member FROM public.members WHERE team = NEW.team", "--fields", "title,done",
    ],
    users: &["zoë", "o'brien \"x\"", "名前"],
    state: "SELECT json_build_array(id)::text AS key, json_build_object('title', title, 'done', done)::text AS row
            FROM tasks WHERE team IN (SELECT team FROM members WHERE member = $1)",
    breaks: ("ALTER TABLE members RENAME TO people", "ALTER TABLE people RENAME TO members"),
    statements: &[
        "INSERT INTO tasks VALUES ({n}, {x} % 4, 'title {x}') ON CONFLICT (id) DO UPDATE SET team = excluded.team",
        "INSERT INTO tasks SELECT n, {x} % 4, repeat('long ', {x}) FROM generate_series({n}, {n} + 4) AS n
             ON CONFLICT (id) DO UPDATE SET title = excluded.title",
        "UPDATE tasks SET team = {x} % 4 WHERE id BETWEEN {n} AND {n} + 3",
        "UPDATE tasks SET done = NOT done, title = '{x}' WHERE id = {n}",
        "UPDATE tasks SET id = {m} WHERE id = {n} AND NOT EXISTS (SELECT FROM tasks WHERE id = {m})",
        "DELETE FROM tasks WHERE id IN ({n}, {m})",
    ],
};

pub const PARTITIONED: Schema = Schema {
    tables: "CREATE TABLE readings (place int, id int, owner uuid, value numeric, PRIMARY KEY (id, place))
            PARTITION BY LIST (place);
        CREATE TABLE readings_0 PARTITION OF readings FOR VALUES IN (0);
        CREATE TABLE readings_1 (owner uuid, value numeric, id int NOT NULL, place int NOT NULL);
        ALTER TABLE readings ATTACH PARTITION readings_1 FOR VALUES IN (1);
        CREATE TABLE readings_rest PARTITION OF readings DEFAULT",
    table: "readings",
    attach: &["--kind", "reading", "--user", "owner", "--fields", "value"],
    users: &["00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"],
    state: "SELECT json_build_array(id, place)::text AS key, json_build_object('value', value)::text AS row
            FROM readings WHERE owner = $1::text::uuid",
    breaks: ("", ""),
    statements: &[
        "INSERT INTO readings VALUES ({x} % 3, {n}, '{u}', {x}.5) ON CONFLICT (id, place) DO UPDATE SET value = excluded.value",
        "INSERT INTO readings_1 (id, place, owner, value) VALUES ({n}, 1, '{u}', {x}) ON CONFLICT DO NOTHING",
        "UPDATE readings SET value = {x} WHERE id BETWEEN {n} AND {n} + 3",
        "UPDATE readings SET owner = '{v}' WHERE id = {n}",
        "UPDATE readings SET place = {m} + 100 WHERE id = {n} AND place = 0
             AND NOT EXISTS (SELECT FROM readings AS r WHERE r.id = {n} AND r.place = {m} + 100)",
        "DELETE FROM readings WHERE id = {n}",
        "DELETE FROM readings_rest WHERE id = {m}",
    ],
};
