import { describe, expect, it } from 'vitest';
import { idSet } from '../../src/ids.js';

/** The same numbers for the same seed. */
function seeded(seed: number): () => number {
  return () => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647;
}

describe('a set of ids', () => {
  const random = seeded(7);
  it.each([
    ['one after another', (i: number) => 2 ** 52 + i],
    ['of one user among many', (i: number) => 2 ** 40 + i * 1_000_003],
    ['at random', () => Math.floor(random() * Number.MAX_SAFE_INTEGER)],
    ['repeated', (i: number) => i % 100],
    ['alike in their lower 32 bits', (i: number) => i * 2 ** 32],
    ['around zero', (i: number) => i - 5_000],
  ])('%s has what a Set has', (_, id) => {
    const [ids, set] = [idSet(), new Set<number>()];
    for (let i = 0; i < 10_000; i++) {
      const next = id(i);
      expect(ids.has(next)).toBe(set.has(next));
      expect(ids.add(next)).toBe(!set.has(next));
      set.add(next);
    }
    for (const known of set) expect(ids.has(known)).toBe(true);
    for (let i = 0; i < 1_000; i++) {
      const other = Math.floor(random() * Number.MAX_SAFE_INTEGER);
      expect(ids.has(other)).toBe(set.has(other));
    }
  });

  it.each([100_000, 131_072, 200_000, 777_777, 1_000_000])('of %i takes at most 16 bytes an id', (count) => {
    const ids = idSet();
    for (let i = 0; i < count; i++) ids.add(2 ** 45 + i * 4_099);
    expect(ids.bytes / count).toBeLessThanOrEqual(16);
  });
});
