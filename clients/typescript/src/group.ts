/**
 * Tabs that share a store, through one connection.
 *
 * The tab that holds the store's lock leads: it has the connection, numbers the frames that come, and passes them on
 * over a BroadcastChannel. Each tab hands every frame to its own handlers and says how far it is; the leader saves
 * the place that all of them have reached.
 *
 * A tab's position is a frame of a leader's term. Each tab keeps the frames since the place in the store, so that a
 * tab which opens, and one which takes over, go on from there. Whose position the leader does not know is alone:
 * it has a connection of its own, and saves nothing.
 *
 * Who has lost the lock may not know it yet: a higher term counts, also in the store.
 */

import { SETTLE_MS, TERMS_MAX } from './bounds.js';
import { failure } from './errors.js';
import type { RealtimeError } from './errors.js';
import type { Frame } from './frames.js';
import { type History, historyOf } from './history.js';
import { membersOf } from './members.js';
import { lockOf } from './tab-lock.js';
import type { Body, Join, Joined, Message, Position } from './tab-messages.js';
import { isVisible, leaderWatch } from './tab-watch.js';
import { type Timer, later } from './timer.js';
import type { ClientOptions, ConnectionState, LockManagerLike } from './types.js';

/** A frame's number. Numbers of another `epoch` count something else. */
export interface At {
  readonly epoch: number;
  readonly frame: number;
  /** Whether the tab's place after it is that of the stream. One that has joined while it was ahead is there later. */
  readonly isExact: boolean;
}

export interface GroupOwner {
  /** This tab leads from now on: it is to connect. */
  onLead(): void;
  /** It does not lead any more, and is to join. */
  onFollow(): void;
  /** It has joined: what comes after `at` is passed on to it. From the present on if `isNew`, else after what it has. */
  onJoined(leader: Joined, at: At, isNew: boolean): void;
  /** It is alone. */
  onAlone(): void;
  /** A frame that the leader has passed on. */
  onFrame(frame: Frame, characters: number, at: At): void;
  /** How the leader's connection is. */
  onState(state: ConnectionState): void;
  /** The leader is to connect with other kinds. */
  onKinds(): void;
  /** More of what was handled here may be saved. */
  onProgress(): void;
  /** Whether this tab knows all ids since a time before that cursor. */
  reaches(cursor: string | null): boolean;
  /** The cursors of which that is so. */
  readonly passed: readonly string[];
  report(error: RealtimeError): void;
  /** What a tab that joins is sent. */
  readonly leader: Joined;
}

export interface Group {
  readonly name: string;
  /** Until this is known, nobody knows who is to connect. */
  readonly entered: Promise<void>;
  readonly isLeading: boolean;
  readonly isAlone: boolean;
  /** Of the stream that this tab is in; 0 if it is in none. */
  readonly term: number;
  /** From where to connect, if this tab leads. */
  readonly cursor: string | null;
  /** The kinds to connect with, if this tab leads; all without. */
  readonly kinds: readonly string[] | undefined;
  /** Where this tab is, if it is anywhere in a leader's stream. */
  position: Position | undefined;
  /** Asks the leader to pass frames on, from the position on; from the present if `isNew`. */
  join(isNew: boolean): void;
  /** Takes no frames any more, until it joins. */
  part(): void;
  /** The leader connects, from this cursor on, with a term higher than the one that is kept. Returns the number of the last frame before, if there was another stream. */
  begin(cursor: string | null, termKept: number): At | undefined;
  /** The leader is connected, and others may join. */
  ready(): void;
  /** The number that the next frame will have, if this tab leads. */
  readonly next: At | undefined;
  /** Passes the next frame on, if this tab leads. */
  record(frame: Frame, characters: number): void;
  /** Sends the others how the connection is, if this tab leads. */
  tell(state: ConnectionState): void;
  /** This tab goes on from elsewhere: it has no position. */
  stray(): void;
  /** Lets another tab lead, if there is one. */
  resign(): void;
  /** This tab has handled the frame. */
  handled(at: At | undefined): void;
  /** Whether all tabs have handled the frame, as far as this one knows. */
  mayKeep(at: At | undefined): boolean;
  /** The position after that frame. */
  positionAt(at: At | undefined): Position | undefined;
  /** Acknowledges to the leader what this tab has handled. */
  acknowledge(): void;
  /** Does not wait any longer for tabs that have not joined. */
  settle(): void;
  /** The place after this frame is in the store. */
  saved(frame: number): void;
  leave(): void;
}

/** So many cursors further, what a tab had ahead of the others is in no place any more. */
const AHEAD_CURSORS = 4;
/** Of terms that begin in the same millisecond. */
const TERMS_PER_MS = 1_000;

/** The names that the clients of a page have, by the page's locks. */
const pages = new WeakMap<object, Set<string>>();

/** Enters the group of that name. Throws where there are no channels. */
export function groupOf(
  name: string,
  locks: LockManagerLike,
  options: ClientOptions,
  owner: GroupOwner,
): Group {
  const { queueFramesMax } = options;
  const channel = new BroadcastChannel(name);
  const id = `${Math.random()}`;
  const ownNames = pages.get(locks) ?? new Set();
  const isSecond = ownNames.has(name);
  pages.set(locks, ownNames.add(name));

  /** The kinds that the tabs want; all without. */
  let kinds: readonly string[] | undefined = options.kinds ?? undefined;

  let isOver = false;
  let isLeading = false;
  let isJoined = false;
  let isAlone = false;
  let isReady = false;
  /** Whether this tab's stream has its term. */
  let hasBegun = false;
  /** Of the stream that this tab is in: its leader's term; 0 if it is in none. */
  let term = 0;
  /** The highest that was received. */
  let highest = 0;
  /** Of earlier terms, the last frame that this stream has. */
  let ends = new Map<number, number>();
  /** From where the leader connected after the last of them. */
  let takenOverAt: string | null = null;
  let history: History = historyOf(0, null, queueFramesMax);
  /** The cursors that have to come until this tab is no more ahead of the stream. */
  let ahead = 0;
  let epoch = 0;
  /** The newest frame of this epoch that was handled here. */
  let done = -1;
  let members = membersOf();
  /** Whether the others may not have joined yet. */
  let isSettling = false;
  let settling: Timer;

  const post = (body: Body, to?: string): void => {
    if (!isOver) channel.postMessage({ ...body, from: id, to } satisfies Message);
  };
  const here = (): void => {
    post({ type: 'here', term, isVisible: isVisible(), saved: history.saved });
  };

  const lock = lockOf(locks, name, {
    onHeld: lead,
    onTaken: follow,
    onFailed(cause, isFirst) {
      owner.report(failure('store', cause));
      isFirst ? stray() : alone();
    },
  });

  function lead(isFirst: boolean): void {
    isLeading = true;
    isJoined = isAlone = hasBegun = false;
    members = membersOf();
    isSettling = !isFirst;
    if (isSettling) owner.onLead();
  }

  function settle(): void {
    clearTimeout(settling);
    isSettling = false;
    owner.onProgress();
  }

  /** Leads no more. */
  function demote(): void {
    isLeading = isReady = isSettling = false;
    clearTimeout(settling);
    watch.restart();
  }

  /** Another leads. */
  function follow(): void {
    demote();
    owner.onFollow();
  }

  function stray(): void {
    term = 0;
    isReady = isJoined = isSeeking = hasBegun = false;
    isAlone = !isLeading;
  }

  function alone(): void {
    stray();
    owner.onAlone();
  }

  // Those who follow.

  /** Whether this tab wants to join, and whether from the present on. */
  let isSeeking = false;
  let wantsNew = false;
  /** Counts what was asked: an answer to anything but the last may be of another position. */
  let question = 0;
  const watch = leaderWatch({
    onTick() {
      if (isLeading) ask();
      return !isLeading && !isAlone;
    },
    ask: () => post({ type: 'ask' }),
    onSilent: lock.steal,
  });

  function join(isNew: boolean): void {
    wantsNew = isNew;
    isSeeking = true;
    const passed = isAlone ? owner.passed : [];
    post({ type: 'join', position: positionHere(), isNew, passed, kinds: options.kinds, question: ++question });
  }

  function positionHere(): Position | undefined {
    return term ? { term, frame: history.last } : undefined;
  }

  function onJoined(message: Message & { type: 'joined' }): void {
    const { overlap, first } = message;
    isSeeking = false;
    if (overlap && !owner.reaches(overlap[0])) return isAlone ? undefined : alone();
    isAlone = false;
    kinds = message.kinds;
    const isSame = term && first - 1 === history.last;
    // What was passed on before it was alone has other numbers.
    if (!term) history = historyOf(first - 1, null, queueFramesMax);
    isJoined = true;
    term = highest = message.term;
    ends = new Map(message.ends);
    // Where it goes on after the frame that it has, the numbers before are the same ones.
    if (!isSame) renumber();
    history.rewind(first - 1);
    // Else it is where it was in the stream.
    if (overlap || wantsNew) {
      history.cursor = overlap ? overlap[0] : message.cursor;
      ahead = overlap ? AHEAD_CURSORS : 0;
    }
    owner.onJoined(message, numbered(first - 1), wantsNew);
    message.frames.forEach(([frame, characters], i) => deliver(first + i, frame, characters));
  }

  const numbered = (frame: number): At => ({ epoch, frame, isExact: !ahead });

  function note(frame: Frame, characters: number): number {
    const before = history.cursor;
    const number = history.add(frame, characters);
    if (ahead && history.cursor !== before) ahead--;
    return number;
  }

  function renumber(): void {
    epoch++;
    done = -1;
  }

  function deliver(number: number, frame: Frame, characters: number): void {
    if (!isJoined) return;
    if (number !== history.last + 1) {
      isJoined = false;
      return join(false);
    }
    const before = [history.cursor, ahead] as const;
    note(frame, characters);
    owner.onFrame(frame, characters, numbered(number));
    if (isJoined) return;
    // It was not taken.
    history.rewind(number - 1);
    [history.cursor, ahead] = before;
  }

  // Who leads.

  /** Whether the leader has the kinds that a tab wants. Else it asks the server for them, too. */
  function widen(wanted: readonly string[] | undefined): boolean {
    if (!kinds || wanted?.every((kind) => kinds!.includes(kind))) return true;
    kinds = wanted && [...new Set([...kinds, ...wanted])];
    isReady = false;
    owner.onKinds();
    return false;
  }

  /** The first frame for a tab that joins, and the cursor since which it may know some; nothing if that is not known. */
  function firstOf({ position, isNew, passed }: Join): { first?: number; overlap?: readonly [string | null] } {
    if (isNew) return { first: history.last + 1 };
    if (!position) {
      const first = history.after(passed);
      return first === undefined ? {} : { first, overlap: [history.cursorOf(first - 1)] };
    }
    const end = position.term === term ? history.last : ends.get(position.term);
    if (end === undefined) return {};
    if (position.frame <= end) return { first: position.frame + 1 };
    const isLast = [...ends.keys()].at(-1) === position.term;
    return isLast ? { first: end + 1, overlap: [takenOverAt] } : {};
  }

  function admit(join: Join & { readonly from: string }): void {
    const { from, question } = join;
    if (!widen(join.kinds)) return;
    const { first, overlap } = firstOf(join);
    if (first === undefined || !history.has(first)) return post({ type: 'refused', term, question }, from);
    members.add(from);
    const { cursor, state } = owner.leader;
    const frames = history.since(first);
    post({ type: 'joined', term, question, first, frames, ends: [...ends], overlap, kinds, cursor, state }, from);
  }

  function ask(): void {
    members.ask();
    here();
    owner.onProgress();
  }

  channel.onmessage = ({ data }: { data: Message }): void => {
    const { from, to } = data;
    if (isOver || (to && to !== id)) return;
    const theirs = 'term' in data ? data.term : 0;
    if (theirs > highest) highest = theirs;
    switch (data.type) {
      case 'join':
        if (isReady) return admit(data);
        // It shows at least how the connection is.
        return isLeading && hasBegun ? post({ type: 'state', term, state: owner.leader.state }, from) : undefined;
      case 'ask':
        return void (isReady && here());
      case 'bye':
        members.remove(from);
        return isLeading ? owner.onProgress() : undefined;
      case 'handled':
        if (!isLeading || theirs !== term) return;
        members.acknowledge(from, data.frame);
        return owner.onProgress();
    }
    // What is left is said by a leader.
    if (isLeading) {
      if (theirs <= term) return;
      lock.yield();
      return follow();
    }
    if (theirs < highest) return;
    watch.received(data.type === 'here' && data.isVisible);
    switch (data.type) {
      case 'here':
        if (isAlone) return;
        if (!isJoined || theirs !== term) return isSeeking || isJoined ? join(!isJoined && wantsNew) : undefined;
        history.forget(data.saved);
        return acknowledge();
      case 'joined':
      case 'refused':
        if (!isSeeking || data.question !== question) return;
        if (data.type === 'joined') return onJoined(data);
        isSeeking = false;
        return isAlone ? undefined : alone();
    }
    if (data.type === 'state' && isSeeking && !isAlone && data.state.status === 'reconnecting') owner.onState(data.state);
    if (!isJoined || theirs !== term) return;
    if (data.type === 'frame') deliver(data.number, data.frame, data.characters);
    else owner.onState(data.state);
  };

  function acknowledge(): void {
    if (isJoined) post({ type: 'handled', term, frame: done });
  }

  if (isSecond) {
    owner.report(failure('store', 'another client of this page has this store: have one client, or a store for each'));
  }
  return {
    name,
    entered: lock.entered,
    get isLeading() {
      return isLeading;
    },
    get isAlone() {
      return isAlone;
    },
    get term() {
      return term;
    },
    get cursor() {
      return history.cursor;
    },
    get kinds() {
      return kinds;
    },
    get position() {
      return positionHere();
    },
    set position(position) {
      term = position?.term ?? 0;
      highest = Math.max(highest, term);
      history = historyOf(position?.frame ?? 0, owner.leader.cursor, queueFramesMax);
      ahead = 0;
    },
    join,
    part() {
      isJoined = isSeeking = false;
    },
    begin(cursor, termKept) {
      if (hasBegun) return undefined;
      hasBegun = true;
      // Where it was ahead, the others need what it has already.
      const before = owner.reaches(history.cursor) || history.cursor === cursor ? term : 0;
      // Higher than those before, also where the clock was set back, and no other tab's.
      term = highest = Math.max(Date.now() * TERMS_PER_MS, highest + 1, termKept + 1) + Math.floor(Math.random() * TERMS_PER_MS);
      if (before) ends.set(before, history.last);
      else {
        ends = new Map();
        history = historyOf(0, cursor, queueFramesMax);
        ahead = 0;
        renumber();
      }
      ends = new Map([...ends].slice(-TERMS_MAX));
      takenOverAt = history.cursor;
      return numbered(history.last);
    },
    ready() {
      isReady = isLeading;
      if (!isReady) return;
      here();
      // They join when it is connected, and not before.
      if (!isSettling) return;
      clearTimeout(settling);
      settling = later(SETTLE_MS, settle);
    },
    get next() {
      return isLeading ? numbered(history.last + 1) : undefined;
    },
    record(frame, characters) {
      if (isLeading) post({ type: 'frame', term, number: note(frame, characters), frame, characters });
    },
    tell(state) {
      if (isLeading && hasBegun) post({ type: 'state', term, state });
    },
    stray,
    resign() {
      if (!isLeading || members.isEmpty) return;
      // Whoever waits has it then, and this tab is last in the queue.
      lock.yield();
      demote();
    },
    handled(at) {
      if (at?.epoch === epoch) done = at.frame;
    },
    mayKeep(at) {
      if (at?.epoch !== epoch) return true;
      // One that follows may lead next: it is then to know what the others have not handled yet.
      if (!isLeading) return at.frame <= history.saved;
      return !isSettling && members.have(at.frame);
    },
    positionAt: (at) => (term && at?.epoch === epoch && at.isExact ? { term, frame: at.frame } : undefined),
    acknowledge,
    settle,
    saved: (frame) => history.forget(frame),
    leave() {
      post({ type: 'bye' });
      isOver = true;
      isLeading = isReady = false;
      watch.stop();
      clearTimeout(settling);
      channel.close();
      if (!isSecond) ownNames.delete(name);
      lock.leave();
    },
  };
}
