/** Sets of ids that are exact and small: a replay of a million events is remembered in 16 MB at most. */

export interface IdSet {
  has(id: number): boolean;
  /** Returns whether it was not there yet. */
  add(id: number): boolean;
  /** What it takes. */
  readonly bytes: number;
}

/** Slots at the beginning. */
const FIRST_SLOTS = 16;
/** How much of the slots is used before there are one and a half times as many: 10.7 to 16 bytes an id. */
const FULL = 0.75;
/** A slot without an id: ids are safe integers. */
const EMPTY = NaN;

/** A hash table with linear probing. */
export function idSet(from: Iterable<number> = []): IdSet {
  let slots = new Float64Array(FIRST_SLOTS).fill(EMPTY);
  let size = 0;

  /** The slot that has the id, or the one where it goes. */
  function find(id: number): number {
    // Both halves, each in its own way.
    let hash = Math.imul(id, 0x9e3779b1) ^ Math.imul(id / 2 ** 32, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    let at = (hash >>> 0) % slots.length;
    while (slots[at] === slots[at] && slots[at] !== id) at = (at + 1) % slots.length;
    return at;
  }

  function add(id: number): boolean {
    const at = find(id);
    if (slots[at] === id) return false;
    slots[at] = id;
    if (++size > slots.length * FULL) {
      const before = slots;
      slots = new Float64Array(Math.ceil(before.length * 1.5)).fill(EMPTY);
      for (const known of before) if (known === known) slots[find(known)] = known;
    }
    return true;
  }

  for (const id of from) add(id);
  return {
    has: (id) => slots[find(id)] === id,
    add,
    get bytes() {
      return slots.byteLength;
    },
  };
}
