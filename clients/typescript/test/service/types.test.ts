import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocket } from 'ws';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { until } from '../support.js';
import { type Pair, World, binary, environment, temporary } from './service.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const place = temporary();
let world: World;
let pair: Pair;

beforeAll(async () => {
  writeFileSync(join(place, 'package.json'), '{"type": "module"}');
  const flags = { strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true };
  const compilerOptions = { ...flags, target: 'ES2022', module: 'NodeNext', noEmit: true, types: [] };
  writeFileSync(join(place, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['use.ts'] }));
  world = await World.start();
  pair = await world.addPair();
});
afterAll(async () => {
  await world.end();
  rmSync(place, { recursive: true, force: true });
});

/** The service's program on the world's database. */
function program(...args: string[]): void {
  execFileSync(binary(), [...args, ...world.databaseArgs()], { env: environment });
}

/** The JSON of the user's events, as it comes. */
async function receive(count: number, write: () => Promise<void>): Promise<string[]> {
  const url = world.service.url.replace('http', 'ws');
  const socket = new WebSocket(`${url}/ws?user_id=${pair.to}`, ['hushnet.v1']);
  const frames: string[] = [];
  socket.on('message', (data: Buffer) => void frames.push(`${data}`));
  await until(() => frames.length > 0, 'the hello');
  await write();
  const events = () => frames.filter((frame) => 'user_id' in (JSON.parse(frame) as object));
  await until(() => events().length >= count, `${count} events`);
  socket.close();
  return events();
}

/** Each event as a literal that the compiler holds against the type of its kind. */
function literals(events: string[]): string {
  return events
    .map((event) => `(${event}) satisfies Events[${JSON.stringify((JSON.parse(event) as { type: string }).type)}];\n`)
    .join('');
}

/** What the compiler says of a module beside the one that the command writes. */
function compile(source: string): string {
  program('types', '--typescript', '--out', join(place, 'events.ts'));
  program('types', '--typescript', '--out', join(place, 'events.ts'), '--check');
  writeFileSync(join(place, 'use.ts'), `import type { Events, Keys, Rows } from './events.js';\n${source}`);
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const { stdout } = spawnSync(process.execPath, [compiler, '-p', place], { encoding: 'utf8' });
  return stdout;
}

const TYPES = `
  CREATE TYPE mood AS ENUM ('good', 'it''s "so-so" \\');
  CREATE TYPE place AS (street text, number int);
  CREATE DOMAIN score AS int CHECK (VALUE > 0);
  CREATE DOMAIN numbers AS int[];
  CREATE DOMAIN moods AS mood[];
  CREATE EXTENSION hstore;`;

/** Each column with its type, and two values of it. */
const COLUMNS = [
  ['a_bool', 'bool', `true`, `false`],
  ['a_smallint', 'smallint', `-1`, `2`],
  ['an_integer', 'int', `-1`, `2`],
  ['a_bigint', 'bigint', `9007199254740993`, `2`],
  ['a_real', 'real', `'NaN'`, `1e30`],
  ['a_double', 'double precision', `'-Infinity'`, `0.1`],
  ['a_numeric', 'numeric', `'Infinity'`, `123456789012345678901234567890.5`],
  ['a_text', 'text', `E'\\u2028 "\\\\'`, `''`],
  ['a_char', 'char(3)', `'a'`, `''`],
  ['a_bytea', 'bytea', `'\\x00ff'`, `''`],
  ['a_uuid', 'uuid', `gen_random_uuid()`, `gen_random_uuid()`],
  ['a_date', 'date', `'infinity'`, `'2026-01-02'`],
  ['a_time', 'time', `'12:00'`, `'13:00'`],
  ['a_timestamp', 'timestamp', `'2026-01-02'`, `now()`],
  ['a_timestamptz', 'timestamptz', `now()`, `'-infinity'`],
  ['an_interval', 'interval', `'1 day'`, `'2 h'`],
  ['a_json', 'json', `'{"a": [1, null]}'`, `'null'`],
  ['a_jsonb', 'jsonb', `'"text"'`, `'[]'`],
  ['a_mood', 'mood', `'good'`, `'it''s "so-so" \\'`],
  ['a_range', 'int4range', `'[1,2)'`, `'empty'`],
  ['a_multirange', 'int4multirange', `'{[1,2)}'`, `'{}'`],
  ['an_array', 'int[]', `'{1,NULL}'`, `'{}'`],
  ['an_array_of_text', 'text[]', `'{"a",NULL}'`, `'{}'`],
  ['an_array_of_moods', 'mood[]', `'{good,NULL}'`, `'{}'`],
  ['an_array_of_numeric', 'numeric[]', `'{1.5,NaN}'`, `'{}'`],
  ['an_array_of_json', 'jsonb[]', `ARRAY['{}'::jsonb, NULL]`, `'{}'`],
  ['a_place', 'place', `ROW('a', 1)`, `ROW(NULL, NULL)`],
  ['an_array_of_places', 'place[]', `ARRAY[ROW('a', 1)::place, NULL]`, `'{}'`],
  ['a_score', 'score', `1`, `2`],
  ['numbers_of_a_domain', 'numbers', `'{1}'`, `'{NULL}'`],
  ['an_array_of_numbers', 'numbers[]', `ARRAY['{1,NULL}'::numbers, NULL]`, `'{}'`],
  ['an_array_of_moods_of_moods', 'moods[]', `ARRAY['{good}'::moods, NULL]`, `'{}'`],
  ['a_point', 'point', `'(1,2)'`, `'(3,4)'`],
  ['an_oid', 'oid', `1`, `2`],
  ['a_money', 'money', `'1'`, `'2'`],
  ['an_inet', 'inet', `'::1'`, `'10.0.0.1'`],
  ['a_bit', 'bit(3)', `B'101'`, `B'000'`],
  ['a_vector', 'int2vector', `'1 2'`, `'3'`],
  ['a_store', 'hstore', `'a=>1,b=>NULL'`, `''`],
] as const;

it('a row of every type that the service sends has the type that is written', async () => {
  const names = COLUMNS.map(([name]) => name).join(', ');
  const values = (index: 2 | 3) => COLUMNS.map((column) => `(${column[index]})::${column[1]}`).join(', ');
  const nulls = COLUMNS.map(() => 'NULL').join(', ');
  await world.db.query(
    `${TYPES} CREATE TABLE everything (id bigint PRIMARY KEY, reader uuid NOT NULL,
       ${COLUMNS.map(([name, type]) => `${name} ${type}`).join(', ')});
     CREATE TABLE required (id int PRIMARY KEY, reader uuid NOT NULL,
       ${COLUMNS.map(([name, type]) => `${name} ${type} NOT NULL`).join(', ')})`,
  );
  const fields = names.replaceAll(' ', '');
  program('attach', 'everything', '--user', 'reader', '--fields', fields);
  program('attach', 'everything', '--user', 'reader', '--fields', fields, '--changed', '--kind', 'changes');
  program('attach', 'everything', '--user', 'reader', '--kind', 'keys');
  program('attach', 'required', '--user', 'reader', '--fields', fields);
  const events = await receive(24, async () => {
    const insert = (table: string, id: number, row: string) =>
      world.db.query(`INSERT INTO ${table} (id, reader, ${names}) VALUES (${id}, '${pair.to}', ${row})`);
    for (const table of ['everything', 'required']) {
      await insert(table, 1, values(2));
      await insert(table, 2, values(3));
    }
    await insert('everything', 3, nulls);
    await world.db.query(
      `UPDATE everything SET (${names}) = (SELECT ${names} FROM everything WHERE id = 2) WHERE id <> 2;
       UPDATE everything SET a_bool = NULL, a_mood = 'good' WHERE id = 1;
       DELETE FROM everything WHERE id = 1; DELETE FROM required WHERE id = 1`,
    );
  });
  const kinds = events.map((event) => {
    const { type, op } = JSON.parse(event) as { type: string; op: string };
    return `${type} ${op}`;
  });
  expect(kinds.filter((kind) => kind === 'changes update')).toHaveLength(3);
  expect(compile(literals(events))).toBe('');
  // The compiler does refuse another type. It counts U+2028 as the end of a line.
  const [inserted, required] = ['everything insert', 'required insert'].map((kind) =>
    events[kinds.indexOf(kind)]!.replace('\u2028', ''),
  );
  const lies = [
    inserted!.replace('"a_bool":true', '"a_bool":1'),
    inserted!.replace('"a_real":"NaN"', '"a_real":"none"'),
    inserted!.replace('"a_mood":"good"', '"a_mood":"angry"'),
    inserted!.replace('"a_bool"', '"a_boole"'),
    required!.replace('"a_bool":true', '"a_bool":null'),
  ];
  const refused = compile(literals(lies)).match(/use\.ts\(\d+/g);
  expect([...new Set(refused)]).toEqual(lies.map((_, index) => `use.ts(${index + 2}`));
});

it('an event has the form of its operation, or that of one that is too long', async () => {
  await world.db.query(
    `CREATE TABLE notes (id int PRIMARY KEY, reader uuid, body text NOT NULL);
     CREATE TABLE paths (path text NOT NULL, number int NOT NULL, reader uuid)`,
  );
  program('attach', 'notes', '--user', 'reader', '--kind', 'note', '--fields', 'body');
  const kept = ['--on', 'update', '--when', "NEW.body <> ''"];
  program('attach', 'notes', '--user', 'reader', '--kind', 'kept', '--fields', 'id', ...kept);
  program('attach', 'paths', '--user', 'reader', '--kind', 'path', '--key', 'path,number');
  const events = await receive(9, async () => {
    await world.db.query(
      `INSERT INTO notes VALUES (1, '${pair.to}', repeat('a', 2 << 20)); UPDATE notes SET body = '';
       UPDATE notes SET body = 'a'; UPDATE notes SET body = 'b'; DELETE FROM notes;
       INSERT INTO paths VALUES ('/', 1, '${pair.to}'), (repeat('a', 2 << 20), 2, '${pair.to}')`,
    );
  });
  const ofKept = events.map((event) => JSON.parse(event) as { type: string; op: string });
  // An update that ends or begins what the condition asks for.
  expect(ofKept.filter(({ type }) => type === 'kept').map(({ op }) => op)).toEqual(['delete', 'insert', 'update']);
  const truncated = events.filter((event) => 'truncated' in (JSON.parse(event) as object));
  expect(truncated.map((event) => (JSON.parse(event) as { key: unknown }).key)).toEqual([
    { id: 1 },
    { path: null, number: null },
  ]);
  const use = `
    export function use(event: Events['note'] | Events['path']): Rows['note'] | Keys['path'] | string | number | null {
      if (event.type === 'path') return event.truncated ? event.key.path : event.key;
      if (event.truncated) return event.key.id;
      return event.op === 'delete' ? event.key.id : event.row;
    }`;
  expect(compile(literals(events) + use)).toBe('');
});

/** Words that mean something to TypeScript, and texts that would end a literal, a comment or a line. */
const NAMES = [
  ...['class', 'constructor', 'new', 'get', 'set', 'readonly', 'static', 'async', 'in', 'delete', 'import', 'default'],
  ...['__proto__', 'toString', 'length', '1', '1e3', '-1', '[a]', '#a', 'a.b', '"', '`${x}`', 'größe', '名', ' '],
  ...["'; export const evil = 1; //", '*/ evil(); /*', 'a\nb\r\u2028\u2029', '\u202e\ufeff\u200b', '\\', '\\u{zz}', '😀'],
];

it('a name of a table, a kind or a column is a name and nothing else', async () => {
  const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;
  const columns = NAMES.map((name) => `${quoted(name)} text`).join(', ');
  await world.db.query(
    `CREATE TABLE "*/ evil(); /*\n@deprecated" (id int, reader uuid, ${columns}, PRIMARY KEY (id, "in", "*/ evil(); /*"))`,
  );
  const kinds = ['constructor', '__proto__', '1', 'a.b-c', 'class'];
  for (const kind of kinds) {
    await world.db.query(`SELECT realtime.add_source($1, $2, 'reader', fields => $3, changed => $4)`, [
      kind,
      '"*/ evil(); /*\n@deprecated"',
      // A member that each object has cannot be left out: `changed.constructor` would be a function.
      kind === 'class' ? NAMES.filter((name) => !(name in {})) : NAMES,
      kind === 'class',
    ]);
  }
  const events = await receive(kinds.length * 3, async () => {
    const values = NAMES.map((_, index) => `'${index}'`).join(', ');
    await world.db.query(
      `INSERT INTO "*/ evil(); /*\n@deprecated" VALUES (1, '${pair.to}', ${values});
       UPDATE "*/ evil(); /*\n@deprecated" SET "class" = 'other'; DELETE FROM "*/ evil(); /*\n@deprecated"`,
    );
  });
  const use = `
    import * as all from './events.js';
    // @ts-expect-error A name has made nothing.
    all.evil;
    export const row: keyof Rows['constructor'] = 'toString';
    // @ts-expect-error It is no column.
    export const none: keyof Rows['constructor'] = 'valueOf';`;
  expect(compile(literals(events) + use)).toBe('');
  expect(readFileSync(join(place, 'events.ts'), 'utf8')).not.toMatch(/[\u2028\u2029\u202e\ufeff\u200b\r]/);
});

it("HushNet's kinds have the types of the library", async () => {
  const events = await receive(2, async () => {
    await world.send(pair);
    await world.db.query(`UPDATE devices SET identity_pubkey = 'another' WHERE id = $1`, [pair.toDevice]);
  });
  const use = `
    import type * as library from ${JSON.stringify(join(root, 'src/index.js'))};
    type Same<A, B> = [A, B] extends [B, A] ? true : false;
    export const same: [
      Same<Events['message'], library.MessageEvent>,
      Same<Events['session'], library.SessionEvent>,
      Same<Events['device'], library.DeviceEvent>,
      Same<Events['pending_session'], library.PendingSessionEvent>,
    ] = [true, true, true, true];`;
  expect(compile(literals(events) + use)).toBe('');
});
