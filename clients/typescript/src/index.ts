/**
 * The client of hushnet-realtime: each event of a user handed to its handler once, across lost
 * connections, restarts of the server and page loads.
 *
 * `client.ts` is what a user sees; `run.ts` is what goes on between `connect()` and `close()`; `link.ts`
 * is one socket's life; `pump.ts` hands the events on; `place.ts` is the rule that makes it once;
 * `stores/` keeps it. What is made of functions in a function, and not a class, is so for its size.
 */

export { RealtimeClient } from './client.js';
export { RealtimeError } from './errors.js';
export { memoryStore } from './stores/memory.js';
export { localStorageStore } from './stores/local-storage.js';
export { indexedDbStore } from './stores/indexed-db.js';
export { QUEUE_FRAMES_MAX } from './bounds.js';

export type { ErrorDetails, ErrorKind } from './errors.js';
export type { CursorStore, Place } from './stores/store.js';
export type {
  ClientOptions,
  ClientState,
  ClosedReason,
  ConnectOptions,
  Device,
  DeviceEvent,
  DeviceProof,
  EventKinds,
  EventOf,
  EventType,
  Handled,
  HandlerName,
  HandlerOf,
  Handlers,
  LockManagerLike,
  LostReason,
  MessageEvent,
  OtherEvent,
  PendingMessage,
  PendingSession,
  PendingSessionEvent,
  ReadOptions,
  RealtimeEvent,
  ResetEvent,
  SessionEvent,
  StateRead,
  WebSocketConstructor,
  WebSocketLike,
} from './types.js';
