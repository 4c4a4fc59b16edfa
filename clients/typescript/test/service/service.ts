/**
 * The real service: `run` for its private PostgreSQL, and `serve` processes beside it that a test may
 * kill. Everything is in a directory of its own, on sockets and ports that were free.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { DEADLINE_MS } from '../support.js';

const REPOSITORY = fileURLToPath(new URL('../../../../', import.meta.url));

/** The service's program: `HUSHNET_REALTIME_BIN`, or what cargo has built. */
export function binary(): string {
  const places = [
    process.env.HUSHNET_REALTIME_BIN ?? '',
    join(REPOSITORY, 'target/debug/hushnet-realtime'),
    join(REPOSITORY, 'target/release/hushnet-realtime'),
  ];
  const found = places.find((place) => place && existsSync(place));
  if (!found) throw new Error('no service: cargo build, or set HUSHNET_REALTIME_BIN');
  return found;
}

/** The environment without settings of the service: the tests' own variables would be mistaken for some. */
export const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(HUSHNET_|DATABASE_URL$)/.test(name)),
);

/** A program that serves, once it has said so. */
export class Service {
  private constructor(
    private readonly child: ChildProcess,
    readonly url: string,
  ) {}

  static async start(args: string[], log: string[] = []): Promise<Service> {
    const child = spawn(binary(), args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    const url = await new Promise<string>((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no start: ${log.join('')}`)), DEADLINE_MS);
      const read = (chunk: Buffer): void => {
        log.push(`${chunk}`);
        const address = /serving on (http:\S+)/.exec(log.join(''))?.[1];
        if (!address) return;
        clearTimeout(late);
        resolve(address);
      };
      child.stdout.on('data', read);
      child.stderr.on('data', (chunk: Buffer) => void log.push(`${chunk}`));
      child.on('exit', (code) => reject(new Error(`ended with ${code}: ${log.join('')}`)));
    });
    return new Service(child, url);
  }

  /** `serve` says nothing on standard output: it is there when it is ready. */
  static async serve(args: string[], port: number): Promise<Service> {
    const log: string[] = [];
    const listen = ['--listen', `127.0.0.1:${port}`];
    const child = spawn(binary(), ['serve', ...listen, ...args], {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.on('data', (chunk: Buffer) => void log.push(`${chunk}`));
    child.stderr.on('data', (chunk: Buffer) => void log.push(`${chunk}`));
    const url = `http://127.0.0.1:${port}`;
    const end = performance.now() + DEADLINE_MS;
    for (;;) {
      const answer = await fetch(`${url}/readyz`).catch(() => null);
      if (answer?.ok) return new Service(child, url);
      if (child.exitCode !== null || performance.now() > end) {
        throw new Error(`serve did not start: ${log.join('')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill(signal);
    await ended;
  }
}

/** A port that is free now, for a server that comes back on it. */
export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/**
 * A directory that PostgreSQL's own account can reach, whoever runs the tests: else the service would keep
 * root's cluster elsewhere, where nobody removes it.
 */
export function temporary(): string {
  const directory = mkdtempSync(join(tmpdir(), 'rt-'));
  chmodSync(directory, 0o755);
  return directory;
}

/** Two users with a device each and a chat between them. */
export interface Pair {
  readonly from: string;
  readonly fromDevice: string;
  readonly to: string;
  readonly toDevice: string;
  readonly chat: string;
}

export class World {
  private constructor(
    readonly directory: string,
    readonly service: Service,
    readonly db: pg.Pool,
    private readonly place: { host: string; port: number },
  ) {}

  static async start(): Promise<World> {
    const directory = temporary();
    const service = await Service.start(['run', '--listen', '127.0.0.1:0', '--directory', directory]);
    const lines = readFileSync(join(directory, 'data/postmaster.pid'), 'utf8').split('\n');
    const place = { host: lines[4]!, port: Number(lines[3]) };
    return new World(directory, service, World.pool(place, 'hushnet'), place);
  }

  private static pool(place: { host: string; port: number }, database: string): pg.Pool {
    const pool = new pg.Pool({ ...place, user: 'hushnet', database, max: 6 });
    // PostgreSQL ends before the pool's idle connections do.
    pool.on('error', () => {});
    return pool;
  }

  /** What `serve` needs to be told of the database. */
  databaseArgs(database = 'hushnet'): string[] {
    const { host, port } = this.place;
    const url = `postgres://hushnet@localhost:${port}/${database}?host=${encodeURIComponent(host)}`;
    return ['--database-url', url];
  }

  /** A database with HushNet's own tables and triggers, and no log. */
  async addWithoutLog(database: string): Promise<pg.Pool> {
    await this.db.query(`CREATE DATABASE ${database}`);
    const pool = World.pool(this.place, database);
    for (const file of ['schema', 'triggers']) {
      await pool.query(readFileSync(join(REPOSITORY, `sql/hushnet/${file}.sql`), 'utf8'));
    }
    return pool;
  }

  async addPair(db: pg.Pool = this.db, key = 'demo'): Promise<Pair> {
    const { rows } = await db.query<Pair>(
      `WITH u AS (INSERT INTO users (username)
                  VALUES (gen_random_uuid()::text), (gen_random_uuid()::text) RETURNING id),
            p AS (SELECT min(id::text)::uuid AS f, max(id::text)::uuid AS t FROM u),
            d AS (INSERT INTO devices (user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub,
                                       signed_prekey_sig, one_time_prekeys)
                  SELECT id, $1, '', '', '', '[]' FROM u RETURNING id, user_id),
            c AS (INSERT INTO chats (user_a, user_b) SELECT f, t FROM p RETURNING id)
       SELECT f AS "from", (SELECT id FROM d WHERE user_id = f) AS "fromDevice",
              t AS "to", (SELECT id FROM d WHERE user_id = t) AS "toDevice", c.id AS chat
       FROM p, c`,
      [key],
    );
    return rows[0]!;
  }

  /** Inserts so many messages of a pair in one statement. */
  async send(pair: Pair, count = 1, db: pg.Pool | pg.PoolClient = this.db): Promise<void> {
    await db.query(
      `INSERT INTO messages (logical_msg_id, chat_id, from_user_id, from_device_id, to_user_id,
                             to_device_id, header, ciphertext)
       SELECT gen_random_uuid()::text, $1, $2, $3, $4, $5, '{}', 'x' FROM generate_series(1, $6)`,
      [pair.chat, pair.from, pair.fromDevice, pair.to, pair.toDevice, count],
    );
  }

  /** The ids of the messages in the log for the pair's receiver. */
  async logged(pair: Pair): Promise<number[]> {
    const { rows } = await this.db.query<{ id: string }>(
      `SELECT id FROM realtime.events WHERE user_id = $1 AND payload::jsonb ->> 'type' = 'message'`,
      [pair.to],
    );
    return rows.map(({ id }) => Number(id)).sort((a, b) => a - b);
  }

  async end(): Promise<void> {
    await this.db.end();
    await this.service.end('SIGTERM');
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Random numbers that are the same for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 2 ** 32;
    return state / 2 ** 32;
  };
}
