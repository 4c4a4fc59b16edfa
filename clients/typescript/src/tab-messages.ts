/** What the tabs of a store say to each other. Tabs of a page from before an update say what was said then: see `TABS_VERSION`. */

import type { Frame } from './frames.js';
import type { ConnectionState } from './types.js';

/** Of these messages: tabs of another version are a group of their own. */
export const TABS_VERSION = 1;

/** Where a tab is: after this frame of the leader with this term. */
export interface Position {
  readonly term: number;
  readonly frame: number;
}

/** How the leader is, for a tab that joins. */
export interface Joined {
  /** The leader's newest cursor. */
  readonly cursor: string | null;
  readonly state: ConnectionState;
}

/** Asks the leader to pass its frames on. */
export interface Join {
  readonly type: 'join';
  readonly position: Position | undefined;
  readonly isNew: boolean;
  /** Of a tab that is alone: the cursors that it has passed. */
  readonly passed: readonly string[];
  /** The kinds that it wants; all without. */
  readonly kinds: readonly string[] | undefined;
  /** Comes back with the answer. */
  readonly question: number;
}

/** What a tab says. */
export type Body =
  | Join
  | ({
      readonly type: 'joined';
      readonly term: number;
      readonly question: number;
      /** The first frame that is passed on. */
      readonly first: number;
      readonly frames: readonly (readonly [Frame, number])[];
      readonly ends: readonly (readonly [number, number])[];
      /** Where the joining tab may know some of the frames: the cursor since which it has to know all ids. */
      readonly overlap: readonly [cursor: string | null] | undefined;
      /** The kinds that the leader has asked for. */
      readonly kinds: readonly string[] | undefined;
    } & Joined)
  | { readonly type: 'refused'; readonly term: number; readonly question: number }
  | { readonly type: 'frame'; readonly term: number; readonly number: number; readonly frame: Frame; readonly characters: number }
  | { readonly type: 'ask' | 'bye' }
  | { readonly type: 'here'; readonly term: number; readonly isVisible: boolean; readonly saved: number }
  | { readonly type: 'handled'; readonly term: number; readonly frame: number }
  | { readonly type: 'state'; readonly term: number; readonly state: ConnectionState };
/** With who says it, and to whom if it is not to all. */
export type Message = Body & { readonly from: string; readonly to?: string | undefined };
