import { createHmac, generateKeyPairSync, sign } from 'node:crypto';
import { WebSocket } from 'ws';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type ClientOptions, RealtimeClient, localStorageStore } from '../../src/index.js';
import { FakeLocks, installLocalStorage, until } from '../support.js';
import { type Pair, Service, World, freePort, seeded } from './service.js';

const SEED = Number(process.env.HUSHNET_TEST_SEED ?? 1);
const SECRET = 'a secret of thirty-two bytes, or more';
const JWT = ['--auth', 'jwt+device', '--jwt-algorithm', 'HS256', '--jwt-key', SECRET, '--jwt-leeway-s', '0'];
/** Shorter than in real life, for there are many reconnections here. */
const BACKOFF = { firstMs: 50, longestMs: 400 };

let world: World;
let port: number;
let server: Service;
const clients: RealtimeClient[] = [];

beforeAll(async () => {
  console.info(`seed ${SEED}: HUSHNET_TEST_SEED takes another`);
  world = await World.start();
  port = await freePort();
});
afterAll(() => world.end());
beforeEach(() => void installLocalStorage());
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
  await server.end('SIGKILL');
});

function jwt(pair: Pair, expiresInS: number, claims: object = {}): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + expiresInS;
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: pair.to, exp, ...claims })}`;
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
}

/** A client that notes the ids it hands on, in a list that outlives it. */
function listen(options: Partial<ClientOptions>, ids: number[] = []): RealtimeClient {
  const client = new RealtimeClient({
    url: `ws://127.0.0.1:${port}`,
    WebSocket,
    backoff: BACKOFF,
    ...options,
  });
  client.on('message', ({ id }) => void ids.push(id!));
  clients.push(client);
  return client;
}

/** Every id of the log was handed on, and once. */
async function expectOnce(pair: Pair, ids: number[]): Promise<void> {
  // One more, behind which nothing is left that might come twice.
  await world.send(pair);
  const logged = await world.logged(pair);
  await until(() => ids.length >= logged.length, `${logged.length} events, of which ${ids.length}`);
  expect(ids.toSorted((a, b) => a - b)).toEqual(logged);
}

/** Writes until `total` rows are there: single ones, statements of many, late commits, rollbacks. */
async function write(
  pair: Pair,
  total: number,
  random: () => number,
  onCount: (count: number) => Promise<void> | void,
): Promise<void> {
  const commits: Promise<unknown>[] = [];
  for (let count = 0; count < total; ) {
    const many = 1 + Math.floor(random() ** 4 * 40);
    const connection = await world.db.connect();
    await connection.query('BEGIN');
    await world.send(pair, many, connection);
    const isKept = random() > 0.1;
    const end = connection.query(isKept ? 'COMMIT' : 'ROLLBACK').finally(() => connection.release());
    commits.push(end);
    // Some commit while the next ones are being written.
    if (random() > 0.3) await end;
    if (isKept) count += many;
    await onCount(count);
  }
  await Promise.all(commits);
}

describe('exactly once', () => {
  it('across a server that is killed, with a slow handler and page loads', async () => {
    const random = seeded(SEED);
    server = await Service.serve(world.databaseArgs(), port);
    const pair = await world.addPair();
    const ids: number[] = [];
    const page = (): RealtimeClient => {
      const client = listen({ userId: pair.to, cursorStore: localStorageStore(pair.to), random });
      client.on('message', async ({ id }, { signal }) => {
        if (random() < 0.2) await new Promise((resolve) => setTimeout(resolve, random() * 4));
        // Else it comes again.
        if (!signal.aborted) ids.push(id!);
      });
      void client.connect();
      return client;
    };
    let client = page();
    await until(() => client.state.status === 'live', 'the first connection');
    let kills = 0;
    let loads = 0;
    const fail = async (): Promise<void> => {
      // Two kills and a page load at least, whatever the random numbers are.
      if (kills < 2 || (loads > 0 && random() < 0.6)) {
        kills++;
        await server.end('SIGKILL');
        server = await Service.serve(world.databaseArgs(), port);
      } else {
        loads++;
        await client.close();
        client = page();
      }
      await until(() => client.state.status === 'live', 'the connection');
    };
    let failing: Promise<void> | undefined;
    let due = 100;
    await write(pair, 3_000, random, async (count) => {
      // The writer goes on during a failure, but not so far that it ends before there were enough.
      if (failing && count > due + 300) await failing;
      if (failing || count < due) return;
      due = count + 100;
      failing = fail().finally(() => (failing = undefined));
    });
    await failing;
    await expectOnce(pair, ids);
    console.info(`${ids.length} events, ${kills} kills, ${loads} page loads`);
    expect(kills).toBeGreaterThan(1);
    expect(loads).toBeGreaterThan(0);
  });

  it('across tabs that share a store and are closed or die in turns: each has every event', async () => {
    const random = seeded(SEED + 1);
    server = await Service.serve(world.databaseArgs(), port);
    const pair = await world.addPair();
    const origin = new FakeLocks();
    let [crashes, kills] = [0, 0];
    const open = async () => {
      const ids: number[] = [];
      const cursorStore = localStorageStore(pair.to);
      const { save } = cursorStore;
      const view = origin.tab();
      const client = listen({ userId: pair.to, cursorStore, locks: view }, ids);
      await client.connect();
      /** Closes the tab, or kills it: then nobody waits for anything, and nothing is saved. */
      const die = async (): Promise<void> => {
        const isCrash = random() < 0.5;
        cursorStore.save = (change) => (isCrash ? undefined : save(change));
        const closed = client.close();
        if (!isCrash) return closed;
        crashes++;
        view.crash();
      };
      return { ids, die };
    };
    const tabs = [await open(), await open()];
    // It has every part in its time, and lives on.
    const witness = await open();
    let turns = 0;
    let due = 50;
    const all = [...tabs, witness];
    await write(pair, 10_000, random, async (count) => {
      if (count < due) return;
      due += 400;
      turns++;
      if (random() < 0.2) {
        kills++;
        await server.end('SIGKILL');
        server = await Service.serve(world.databaseArgs(), port);
      }
      await tabs.shift()!.die();
      tabs.push(await open());
      all.push(tabs.at(-1)!);
    });
    await world.send(pair);
    const logged = await world.logged(pair);
    const last = logged.at(-1)!;
    await until(() => [...tabs, witness].every(({ ids }) => ids.includes(last)), 'the last event');
    expect(witness.ids.toSorted((a, b) => a - b)).toEqual(logged);
    for (const { ids } of all) expect(new Set(ids).size).toBe(ids.length);
    console.info(`${logged.length} events, ${kills} kills of the server, ${crashes} crashes of ${turns} tabs`);
    expect(kills).toBeGreaterThan(1);
    expect(crashes).toBeGreaterThan(1);
    expect(turns).toBeGreaterThan(5);
    await Promise.all(tabs.map(({ die }) => die()));
    await witness.die();
  });

  it('when more comes than the queue holds', async () => {
    server = await Service.serve(world.databaseArgs(), port);
    const pair = await world.addPair();
    const ids: number[] = [];
    const client = listen({ userId: pair.to, queueFramesMax: 50 }, ids);
    // The handler blocks until the queue has overflowed.
    const overflow = new Promise<void>((resolve) =>
      client.on('state', (s) => void (s.status === 'reconnecting' && s.reason === 'overflow' && resolve())),
    );
    client.on('message', () => overflow);
    await client.connect();
    for (let i = 0; i < 10; i++) await world.send(pair, 60);
    await overflow;
    await expectOnce(pair, ids);
  });

  it('at a server that ends: goaway, 1012, and the next one', async () => {
    server = await Service.serve(world.databaseArgs(), port);
    const pair = await world.addPair();
    const ids: number[] = [];
    const client = listen({ userId: pair.to }, ids);
    const lost: unknown[] = [];
    client.on('state', (s) => void (s.status === 'reconnecting' && lost.push(s.code ?? s.reason)));
    await client.connect();
    for (let i = 0; i < 3; i++) {
      await world.send(pair, 10);
      await server.end('SIGTERM');
      await world.send(pair, 10);
      server = await Service.serve(world.databaseArgs(), port);
      await until(() => client.state.status === 'live', 'the connection');
    }
    await expectOnce(pair, ids);
    expect(lost.filter((why) => why === 1012 || why === 'goaway')).toHaveLength(3);
  });

  it('state, then the stream, without gap or overlap', async () => {
    server = await Service.serve(world.databaseArgs(), port);
    const pair = await world.addPair();
    const ids: number[] = [];
    const client = listen({ userId: pair.to }, ids);
    let rows = 0;
    await write(pair, 300, seeded(SEED + 2), async (count) => {
      if (rows || count < 100) return;
      const state = await client.fetchPendingMessages(pair.toDevice);
      rows = state.rows.length;
      expect(state.more).toBe(false);
      void client.connect({ since: state.cursor });
    });
    const total = (await world.logged(pair)).length;
    await until(() => rows + ids.length >= total, 'the events after the state');
    // One more, so that anything that came twice has come.
    await world.send(pair);
    await until(() => rows + ids.length >= total + 1, 'the last event');
    expect(rows + new Set(ids).size).toBe(total + 1);
    expect((await client.fetchDevices()).rows.map(({ id }) => id)).toEqual([pair.toDevice]);
    expect((await client.fetchPendingSessions(pair.toDevice)).rows).toEqual([]);
  });
});

describe('proof', () => {
  it('a token is replaced before it expires, without losing the connection', async () => {
    server = await Service.serve([...world.databaseArgs(), ...JWT], port);
    const pair = await world.addPair();
    let states: string[] = [];
    // On a slow machine a token may expire before it is replaced: then one that lives longer.
    for (const expiresInS of [3, 12, 60]) {
      let asked = 0;
      const getToken = () => jwt(pair, expiresInS, { n: asked++ });
      const client = listen({ getToken }, []);
      const seen: string[] = [];
      client.on('state', ({ status }) => void seen.push(status));
      await client.connect();
      await until(() => asked >= 4, 'three new tokens');
      states = [...seen];
      if (states.length === 2) break;
      await client.close();
    }
    expect(states).toEqual(['connecting', 'live']);
  });

  it('a token that expires is followed by another: 4004', async () => {
    server = await Service.serve([...world.databaseArgs(), ...JWT], port);
    let seen: unknown;
    // On a slow machine a token may expire before the client is connected: then one that lives longer.
    for (const expiresInS of [2, 10, 60]) {
      const pair = await world.addPair();
      const ids: number[] = [];
      let asked = 0;
      const getToken = () => {
        if (asked++ === 1) throw new Error('offline');
        return jwt(pair, asked === 1 ? expiresInS : 3_600);
      };
      const client = listen({ getToken }, ids);
      const codes: unknown[] = [];
      client.on('state', (s) => void (s.status === 'reconnecting' && codes.push(s.code)));
      // While the only refresh fails, so that the token does expire.
      client.on('error', ({ kind }) => void (kind === 'proof' && world.send(pair, 3)));
      await client.connect();
      await until(() => codes.length > 0 || asked > 2, 'the expiry');
      await until(() => client.state.status === 'live', 'the connection');
      await world.send(pair, 3);
      await expectOnce(pair, ids);
      seen = [codes, asked];
      if (codes.includes(4004)) break;
    }
    expect(seen).toEqual([[4004], 3]);
  });

  it('a token of nobody is refused for good after three tries', async () => {
    server = await Service.serve([...world.databaseArgs(), ...JWT], port);
    const pair = await world.addPair();
    let asked = 0;
    const client = listen({ getToken: () => `${jwt(pair, 3_600, { n: asked++ })}x` }, []);
    await client.connect();
    await until(() => client.state.status === 'closed', 'the end');
    expect(client.state).toMatchObject({ reason: 'unauthenticated', code: 4001 });
    expect(asked).toBe(3);
  });

  it('a device signs, and is closed with 4003 when it is deleted', async () => {
    server = await Service.serve([...world.databaseArgs(), ...JWT], port);
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    const key = Buffer.from(publicKey.export({ format: 'jwk' }).x!, 'base64url').toString('base64');
    const pair = await world.addPair(world.db, key);
    const ids: number[] = [];
    const signDevice = (timestamp: number) => {
      const signature = sign(null, Buffer.from(`${timestamp}`), privateKey).toString('base64');
      return { key, signature, timestamp };
    };
    // Both of the pair have the key, so the user has to be named.
    const client = listen({ userId: pair.to, signDevice }, ids);
    await client.connect();
    expect(client.state.status).toBe('live');
    expect((await client.fetchPendingMessages(pair.toDevice)).rows).toEqual([]);
    await world.send(pair, 3);
    await until(() => ids.length === 3, 'the events');
    await world.db.query('DELETE FROM devices WHERE id = $1', [pair.toDevice]);
    await until(() => client.state.status === 'closed', 'the end');
    expect(client.state).toMatchObject({ reason: 'revoked', code: 4003 });
  });
});

it('a database without a log: events, and a reset after each gap', async () => {
  const db = await world.addWithoutLog('without_log');
  server = await Service.serve(world.databaseArgs('without_log'), port);
  const pair = await world.addPair(db);
  const ids: (number | undefined)[] = [];
  const client = listen({ userId: pair.to }, ids as number[]);
  const resets: string[] = [];
  client.on('reset', ({ reason }) => void resets.push(reason));
  await client.connect();
  await world.send(pair, 3, db);
  // Without ids, HushNet's own trigger sends three equal notifications, which PostgreSQL makes one.
  await until(() => ids.length === 1, 'the event');
  expect(ids).toEqual([undefined]);
  await server.end('SIGKILL');
  server = await Service.serve(world.databaseArgs('without_log'), port);
  await until(() => resets.length > 0, 'the reset');
  expect(resets).toEqual(['no_log']);
  await client.close();
  await server.end('SIGKILL');
  await db.end();
});
