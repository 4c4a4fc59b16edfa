import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SignedOut } from '../../src/index.js';
import { USER, bench, settle, token } from '../support.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const message = { type: 'message', chat_id: null } as const;

describe('getToken', () => {
  it('is asked again, for ever, when it fails', async () => {
    let asked = 0;
    const getToken = () => {
      if (++asked <= 20) throw new Error('offline');
      return token(600);
    };
    const { client, errors } = bench({ getToken });
    void client.connect();
    await vi.advanceTimersByTimeAsync(600_000);
    expect([asked, client.state.status, errors.length]).toEqual([21, 'live', 20]);
    await client.close();
  });

  it('has its time, and is asked again when that is over', async () => {
    let asked = 0;
    const getToken = () => (++asked === 1 ? new Promise<string>(() => {}) : token(600));
    const { client, errors } = bench({ getToken, proofTimeoutMs: 2_000 });
    void client.connect();
    await vi.advanceTimersByTimeAsync(2_000);
    expect(client.state).toMatchObject({ status: 'reconnecting', reason: 'proof' });
    expect(errors).toMatchObject([{ kind: 'proof', message: expect.stringContaining('2000 ms') as string }]);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state.status).toBe('live');
    await client.close();
  });

  it.each([['a token with spaces'], [''], [undefined], [7.5]])(
    'that gives %j three times in a row closes the client',
    async (malformed) => {
      const getToken = vi.fn(() => (malformed === 7.5 ? 'ä' : malformed) as string);
      const { client, errors, server } = bench({ getToken });
      void client.connect();
      await vi.advanceTimersByTimeAsync(60_000);
      expect(client.state).toMatchObject({ status: 'closed', reason: 'unauthenticated' });
      expect([getToken.mock.calls.length, errors.length, server.connects]).toEqual([3, 3, 0]);
    },
  );

  it('that fails when the token is to be renewed leaves the one before, which is still good', async () => {
    let asked = 0;
    const first = token(600);
    const getToken = () => {
      if (++asked > 1) throw new Error('offline');
      return first;
    };
    const { client, server } = bench({ getToken, random: () => 0 });
    await client.connect();
    await vi.advanceTimersByTimeAsync(541_000);
    expect(asked).toBeGreaterThan(1);
    server.close(1006);
    await vi.advanceTimersByTimeAsync(10);
    expect(client.state.status).toBe('live');
    expect(server.connection.protocols.join()).toContain(first);
    await client.close();
  });

  it('that fails between refusals begins no new count', async () => {
    let asked = 0;
    const getToken = () => {
      if (++asked % 2 === 0) throw new Error('offline');
      return token(600);
    };
    const { client, server } = bench({ getToken });
    for (let i = 0; i < 9; i++) server.refuse(4001);
    void client.connect();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(client.state).toMatchObject({ status: 'closed', reason: 'unauthenticated' });
    expect(server.connects).toBe(3);
  });

  it.each([
    ['gives null', () => null],
    ['throws SignedOut', () => Promise.reject(new SignedOut())],
  ])('that %s closes the client without an error, and connect() comes back', async (_, out) => {
    let isOut = true;
    const { client, errors, server, ids } = bench({ getToken: () => (isOut ? out() : token(600)) });
    await client.connect();
    expect(client.state).toEqual({ status: 'closed', reason: 'signed_out' });
    expect([errors, server.connects]).toEqual([[], 0]);
    isOut = false;
    await client.connect();
    server.emit(message);
    await settle();
    expect(ids).toEqual([1]);
    await client.close();
  });

  it('that gives null when the token is to be renewed closes the client', async () => {
    let asked = 0;
    const { client, errors } = bench({ getToken: () => (++asked === 1 ? token(600) : null) });
    await client.connect();
    await vi.advanceTimersByTimeAsync(541_000);
    expect(client.state).toEqual({ status: 'closed', reason: 'signed_out' });
    expect(errors).toEqual([]);
  });

  it('is asked before the first connection after a sleep in which the token has expired', async () => {
    const getToken = vi.fn(() => token(600));
    const { client, server } = bench({ getToken });
    await client.connect();
    vi.setSystemTime(Date.now() + 3_600_000);
    server.close(1006);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state.status).toBe('live');
    expect(getToken).toHaveBeenCalledTimes(2);
    await client.close();
  });

  it('is asked by the time that hello gives, whatever this machine takes the time to be', async () => {
    const getToken = vi.fn(() => token(-3_600));
    const { client, server } = bench({ getToken });
    const admit = server.admit.bind(server);
    vi.spyOn(server, 'admit').mockImplementation((connection) => {
      const frame = connection.frame.bind(connection);
      connection.frame = (sent) =>
        frame((sent as { type: string }).type === 'hello' ? { ...(sent as object), expires_in_ms: 80_000 } : sent);
      admit(connection);
    });
    await client.connect();
    await vi.advanceTimersByTimeAsync(59_000);
    expect(getToken).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(getToken).toHaveBeenCalledTimes(2);
    await client.close();
  });
});

describe('fetchDevices()', () => {
  it("asks for the token's own user", async () => {
    const { client, server } = bench({ getToken: () => token(600) });
    server.answer(`/users/${USER}/devices`, { body: [{ id: 'd' }] });
    expect((await client.fetchDevices()).rows).toEqual([{ id: 'd' }]);
  });

  it('asks for nobody where nothing says whose', async () => {
    const signDevice = (timestamp: number) => ({ key: 'k', signature: 's', timestamp });
    for (const options of [{ getToken: () => 'not.a.token' }, { getToken: () => 'bnVsbA.bnVsbA.s' }, { signDevice }]) {
      const { client } = bench(options);
      await expect(client.fetchDevices()).rejects.toMatchObject({ kind: 'http', message: /whose devices/ });
    }
  });

  it('rejects with SignedOut when nobody is signed in', async () => {
    const { client } = bench({ getToken: () => null });
    await expect(client.fetchDevices()).rejects.toBeInstanceOf(SignedOut);
  });
});
