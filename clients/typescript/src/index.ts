/**
 * The client of hushnet-realtime: each event of a user handed to its handler once, across lost
 * connections, restarts of the server and page loads.
 *
 * The way of an event: `link.ts` is one socket's life and reads a frame; `run.ts` is what goes on between
 * `connect()` and `close()`; `pump.ts` hands frames on, one at a time, by `place.ts`, the rule that makes it
 * once; `handlers.ts` calls the application; `keeper.ts` keeps the place in one of the `stores/`. `group.ts` is what
 * tabs that share a store do. `client.ts` is what a user sees, and
 * `sync.ts` a state that follows the events. What is made of functions in a function, and not a class, is so
 * for its size.
 */

export { RealtimeClient } from './client.js';
export { RealtimeError, SignedOut } from './errors.js';
export { memoryStore } from './stores/memory.js';
export { localStorageStore } from './stores/local-storage.js';
export { sharedStore } from './stores/shared.js';
export { indexedDbStore } from './stores/indexed-db.js';
export { QUEUE_FRAMES_MAX } from './bounds.js';

export type { ErrorDetails, ErrorKind } from './errors.js';
export type { CursorStore, Place, PlaceChange } from './stores/store.js';
export type {
  Blocked,
  ClientOptions,
  ClientState,
  ClosedReason,
  ConnectOptions,
  ConnectionState,
  Device,
  DeviceEvent,
  DeviceProof,
  EventKinds,
  EventOf,
  EventType,
  Handled,
  HandlerContext,
  HandlerName,
  HandlerOf,
  HandlerVerdict,
  KindName,
  LockManagerLike,
  LogEntry,
  LostReason,
  MessageEvent,
  OtherEvent,
  OwnHandlers,
  PendingMessage,
  PendingSession,
  PendingSessionEvent,
  ReadOptions,
  RealtimeEvent,
  ResetEvent,
  SessionEvent,
  StateRead,
  SyncOptions,
  Synced,
  WebSocketConstructor,
  WebSocketLike,
} from './types.js';
