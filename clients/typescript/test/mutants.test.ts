/** The library broken on purpose, one way after another: its unit tests have to notice. */

import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, describe, expect, it } from 'vitest';

interface Mutant {
  readonly file: string;
  /** What is there, once. */
  readonly from: string;
  readonly to: string;
  /** The file of the tests, and the one that must fail. */
  readonly tests: string;
  readonly name: string;
}

const MUTANTS: Record<string, Mutant> = {
  'saves before handing on': {
    file: 'pump.ts',
    from: '    const given = await owner.hand(entry);\n',
    to: `    if (entry.type !== 'reset') {
      keeper.note({ cursor: (entry as RealtimeEvent).cursor, ids: [], at });
      await keeper.save();
    }
    const given = await owner.hand(entry);\n`,
    tests: 'handlers.test.ts',
    name: 'what ends after it saves nothing',
  },
  'takes the highest id for what is known': {
    file: 'place.ts',
    from: '    has: (id) => parts.some(({ ids }) => ids.has(id)),\n',
    to: `    has(id) {
      const world = globalThis as { highest?: number };
      const isKnown = id <= (world.highest ?? 0);
      world.highest = Math.max(world.highest ?? 0, id);
      return isKnown;
    },\n`,
    tests: 'once.test.ts',
    name: 'events whose ids are in no order',
  },
  'comes back after 4003': {
    file: 'close-codes.ts',
    from: "if (code === 4003) return 'revoked';",
    to: "if (code === 4003) return 'return';",
    tests: 'connection.test.ts',
    name: '4003 comes back: false',
  },
  'moves the place by a reset that failed': {
    file: 'handlers.ts',
    from: "verdict === 'skip' && frame.type !== 'reset'",
    to: "verdict === 'skip'",
    tests: 'handlers.test.ts',
    name: 'of a reset moves nothing (skip)',
  },
  'begins the backoff anew before the hello': {
    file: 'run.ts',
    from: '    const mine = ++turn;\n    let protocols;\n',
    to: '    const mine = ++turn;\n    failures = 0;\n    let protocols;\n',
    tests: 'connection.test.ts',
    name: 'grows with each failure',
  },
  'calls again the handlers that have worked': {
    file: 'handlers.ts',
    from: '      left = failed.filter(isLeft);\n',
    to: '      if (!failed[0]) break;\n      left = left.filter(isLeft);\n',
    tests: 'handlers.test.ts',
    name: 'is called again alone',
  },
  'forgets ids when the cursor moves': {
    file: 'place.ts',
    from: '...parts.slice(0, CURSORS_MAX - 1)]',
    to: '{ cursor: null, ids: idSet() }]',
    tests: 'once.test.ts',
    name: 'also one cursor later',
  },
  'begins at the present where the place is not known': {
    file: 'run.ts',
    from: "if (loaded.isLost && !since) missing = 'storage';",
    to: '',
    tests: 'stores.test.ts',
    name: 'the application is reset first',
  },
  'saves the place of the fastest tab': {
    file: 'group.ts',
    from: 'members.have(at.frame)',
    to: 'true',
    tests: 'tabs.test.ts',
    name: 'save what all of them have handled',
  },
  'lets a tab save that has lost the lock': {
    file: 'stores/local-storage.ts',
    from: 'if (!kept || term >= Number(kept[1])) ',
    to: '',
    tests: 'tabs.test.ts',
    name: 'a late save of one that has lost the lock is refused',
  },
  'takes an answer to an earlier question': {
    file: 'group.ts',
    from: 'if (!isSeeking || data.question !== question) return;',
    to: 'if (!isSeeking) return;',
    tests: 'tabs.test.ts',
    name: 'take no answer to an earlier question',
  },
  'joins at the present, and not where the store is': {
    file: 'group.ts',
    from: 'if (isNew) return {',
    to: 'if (isNew || position) return {',
    tests: 'tabs-model.test.ts',
    name: 'lose nothing, repeat nothing',
  },
};

const library = fileURLToPath(new URL('..', import.meta.url));
const root = mkdtempSync(join(tmpdir(), 'hushnet-mutants-'));
const copy = join(root, 'clients/typescript');
for (const part of ['src', 'test', 'package.json', 'tsconfig.json', 'vitest.config.ts']) {
  cpSync(join(library, part), join(copy, part), { recursive: true });
}
symlinkSync(join(library, 'node_modules'), join(copy, 'node_modules'));
// Tests read the tables of the documents.
symlinkSync(join(library, '../../docs'), join(root, 'docs'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Runs one test of the copy; what it printed if it failed. */
async function failure({ tests, name }: Mutant): Promise<string | undefined> {
  const escaped = name.replace(/[().]/g, '\\$&');
  const args = ['node_modules/vitest/vitest.mjs', 'run', `test/unit/${tests}`, '-t', escaped, '--reporter=verbose'];
  const { NODE_OPTIONS: _, VITEST: __, ...env } = process.env;
  try {
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: copy, env });
    expect(stdout).toContain(name);
    return undefined;
  } catch (cause) {
    const { stdout } = cause as { stdout?: string };
    if (stdout === undefined) throw cause;
    return stdout;
  }
}

describe.each(Object.entries(MUTANTS))('a client that %s', (_, mutant) => {
  it('is noticed', async () => {
    const path = join(copy, 'src', mutant.file);
    const whole = readFileSync(path, 'utf8');
    expect(whole.split(mutant.from)).toHaveLength(2);
    expect(await failure(mutant)).toBeUndefined();
    writeFileSync(path, whole.replace(mutant.from, () => mutant.to));
    try {
      expect(await failure(mutant)).toMatch(/Tests.*failed/);
    } finally {
      writeFileSync(path, whole);
    }
  });
});
