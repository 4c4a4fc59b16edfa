/**
 * The shapes that the library takes and gives. Events and rows keep the names that they have on the
 * wire (docs/protocol.md); everything that is the library's own is in camel case, with units last.
 */

import type { RealtimeError } from './errors.js';
import type { CursorStore } from './stores/store.js';

/** What every event has. */
interface EventBase {
  /** The user whom the event is for: a UUID, a bigint in decimal digits, or text, as the database has it. */
  readonly user_id: string;
  /** The event's number, below 2^53, the same for every device of the user. Missing without a log. */
  readonly id?: number;
  /** The newest cursor that the connection had passed with this event. Missing around a replay. */
  readonly cursor?: string | null;
}

/** A row was inserted into `messages` for the user. */
export interface MessageEvent extends EventBase {
  readonly type: 'message';
  /** The chat of the message, a UUID; `null` when the row has none. */
  readonly chat_id: string | null;
}

/** A row was inserted into `sessions` for one of the user's devices. */
export interface SessionEvent extends EventBase {
  readonly type: 'session';
  /** The device that asked for the session, a UUID. */
  readonly sender_device_id: string;
  /** The device that was asked, a UUID. */
  readonly receiver_device_id: string;
}

/** One of the user's devices was added, deleted, or changed in more than `last_seen`. */
export interface DeviceEvent extends EventBase {
  readonly type: 'device';
}

/** A row was inserted into `pending_sessions` for one of the user's devices. */
export interface PendingSessionEvent extends EventBase {
  readonly type: 'pending_session';
  /** The device that is asked for a session, a UUID. */
  readonly recipient_device_id: string;
  /** The device that asks, a UUID. */
  readonly sender_device_id: string;
  /** The row's id, a UUID. */
  readonly pending_session_id: string;
  /** ISO 8601, without an offset. */
  readonly created_at: string | null;
}

/**
 * The kinds of events whose fields are typed, by name. Declare an application's own to have them typed too:
 *
 * ```ts
 * declare module '@hushnet/realtime' {
 *   interface EventKinds {
 *     invoice: { type: 'invoice'; user_id: string; id?: number; cursor?: string | null; amount: number };
 *   }
 * }
 * ```
 */
export interface EventKinds {
  message: MessageEvent;
  session: SessionEvent;
  device: DeviceEvent;
  pending_session: PendingSessionEvent;
}

/**
 * A text that is the name of no kind in `EventKinds`. TypeScript has no such type; this one is assignable
 * to `string`, and a comparison of `type` with a name in `EventKinds` excludes it.
 */
declare enum OtherKind {
  name = '',
}

/** An event of a kind that is not in `EventKinds`: nothing is known of its further fields. */
export interface OtherEvent extends EventBase {
  /** The kind, any text. */
  readonly type: OtherKind;
  /** The event is too long: it has the row's key alone, and the row has to be fetched. */
  readonly truncated?: true;
  readonly [field: string]: unknown;
}

/** Any event. `type` tells them apart. `Events` has the kinds that are typed, by name. */
export type RealtimeEvent<Events extends object = EventKinds> = Events[keyof Events] | OtherEvent;
/** The names of the kinds in `Events`. */
export type EventType<Events extends object = EventKinds> = keyof Events;
/** The event of that kind. */
export type EventOf<T extends string, Events extends object = EventKinds> = T extends keyof Events
  ? Events[T]
  : OtherEvent;

/** Something was missed that cannot be told: the state has to be fetched anew. */
export interface ResetEvent {
  readonly type: 'reset';
  /**
   * Why. `no_log` is also what the client itself says when it comes back to a database without a log,
   * since nobody knows what it has missed. `storage` is the client's alone: the store could not be read, so
   * that nobody knows from where to go on; and so is `start`, with which `sync()` begins.
   */
  readonly reason:
    | 'malformed'
    | 'history'
    | 'future'
    | 'retention'
    | 'truncated'
    | 'event_failed'
    | 'no_log'
    | 'storage'
    | 'start';
  /** From where the stream goes on; `null` in a database without a log. */
  readonly cursor: string | null;
}

/** Why a client is closed and does not come back by itself. */
export type ClosedReason =
  /** `connect()` has not been called yet. */
  | 'not_started'
  /** `close()` was called, or a `for await` loop was left. */
  | 'closed'
  /** Close code 4001: no proof of identity, or three in a row that were refused or could not be sent. */
  | 'unauthenticated'
  /** `getToken` gave `null` or threw `SignedOut`. No error is reported. */
  | 'signed_out'
  /** Close code 4003: the device or the user was deleted. */
  | 'revoked'
  /** Any other close code after which a client is not to come back; `code` has it. */
  | 'refused'
  /** A handler failed and `onHandlerError` said `close`; `error` has it. `connect()` hands it the same event again. */
  | 'handler_failed'
  /** Here the client cannot connect: `error` says what is missing. */
  | 'unsupported';

/** Why a connection was lost, or did not come about. */
export type LostReason =
  /** The socket was closed, and `code` has the close code; or it could not be made. */
  | 'socket'
  /** Nothing came in time: no hello, no heartbeat, or no answer to a ping. */
  | 'silent'
  /** The server is ending and gave this client its time. */
  | 'goaway'
  /** More frames waited for the handlers than `queueFramesMax`. */
  | 'overflow'
  /** `getToken` or `signDevice` failed. */
  | 'proof'
  /** The page was left, and may come back as it was; or `pause()` was called. */
  | 'paused'
  /** `reconnect()` was called. */
  | 'reconnect'
  /** A reset's handler gave another cursor to go on from. */
  | 'restart';

/** A failed handler that is called again. */
export interface Blocked {
  /** What it failed at. The events after it wait. */
  readonly event: RealtimeEvent | ResetEvent;
  /** How often it has failed. */
  readonly attempt: number;
}

/** How the client is doing. `blocked` is there while a failed handler waits to be called again. */
export type ClientState = ConnectionState & { readonly blocked?: Blocked };

/** How the connection is doing. */
export type ConnectionState =
  /** The first connection is being made. */
  | { readonly status: 'connecting' }
  /** Events come. `resumed`: the stream went on from where it was. */
  | { readonly status: 'live'; readonly resumed: boolean }
  /** The connection was lost. The next try, the `attempt`-th in a row, is `retryInMs` later. */
  | {
      readonly status: 'reconnecting';
      readonly reason: LostReason;
      /** The WebSocket close code, if there was one. */
      readonly code?: number;
      readonly attempt: number;
      readonly retryInMs: number;
    }
  /** The client is at rest until `connect()` is called. */
  | {
      readonly status: 'closed';
      readonly reason: ClosedReason;
      /** The WebSocket close code, if it was one that closed the client. */
      readonly code?: number;
      readonly error?: RealtimeError;
    };

/** What a handler may return: nothing, or a promise whose end is the end of the handling. */
export type Handled = void | Promise<void>;

/** What a handler is given besides its event. */
export interface HandlerContext {
  /** Aborted when the client is closed. The event of a promise that ends after that is not kept: it comes again. */
  readonly signal: AbortSignal;
  /** 1, and one more each time that the handler is called again for the same event. */
  readonly attempt: number;
}

/** What is done about a handler that failed. */
export type HandlerVerdict = 'retry' | 'skip' | 'close';

/** The handlers of what is no event, by name. */
export interface OwnHandlers {
  /**
   * Fetches the state anew. The stream waits until it has. It may return the cursor of what it has
   * read, from which the stream then goes on; without one it goes on from the reset's own.
   */
  reset: (
    event: ResetEvent,
    context: HandlerContext,
  ) => void | string | null | undefined | Promise<void | string | null | undefined>;
  /** Called at once at each change of state; nothing waits for it. */
  state: (state: ClientState) => void;
  /** What went wrong without ending the stream, and what ended it. Without a listener the console has it. */
  error: (error: RealtimeError) => void;
}

/** Whether `Events` is `EventKinds`, the kinds of a client that was given none. */
type IsDefault<Events> = [Events, EventKinds] extends [EventKinds, Events] ? true : false;
/**
 * The name of a kind: of one in `Events`. Where that is `EventKinds`, any other text too; else a kind that is not in it is
 * added to it, as in `Events & { weather: OtherEvent }`.
 */
export type KindName<Events extends object = EventKinds> =
  | (keyof Events & string)
  | (IsDefault<Events> extends true ? string & {} : never);
/** A name to register a handler by: of `OwnHandlers`, or of a kind. */
export type HandlerName<Events extends object = EventKinds> = keyof OwnHandlers | KindName<Events>;
/** The handler of that name. */
export type HandlerOf<N extends string, Events extends object = EventKinds> = N extends keyof OwnHandlers
  ? OwnHandlers[N]
  : (event: EventOf<N, Events>, context: HandlerContext) => Handled;

/** What a device proves itself with, over the digits of `timestamp`. */
export interface DeviceProof {
  /** The Ed25519 identity key as it stands in `devices`, base64 or base64url. */
  readonly key: string;
  /** The signature, base64 or base64url. */
  readonly signature: string;
  /** The Unix time in seconds that was signed. */
  readonly timestamp: number;
}

/** The part of a WebSocket's constructor and object that the library uses. */
export interface WebSocketLike {
  readonly readyState: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

/** A WebSocket implementation: the platform's own, that of the package `ws`, or a mock. */
export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

/** The part of the Web Locks API that the library uses. */
export interface LockManagerLike {
  request(
    name: string,
    options: { ifAvailable?: boolean; steal?: boolean; signal?: AbortSignal },
    callback: (lock: unknown) => Promise<void> | undefined,
  ): Promise<unknown>;
}

/** The settings of a client. One of `userId`, `getToken` and `signDevice` is required. */
export interface ClientOptions {
  /**
   * Where the server is: `https://host`, `wss://host/ws` or the same without TLS, with a path before
   * it if a proxy has one. A query stays. In a page it may be relative to the page; on a server that renders the page the
   * client can be made with it all the same, and `connect()` says that there is no page.
   */
  readonly url: string | URL;
  /** Whose events: a UUID, a bigint in decimal digits, or text, as the database has it. Needed with `--auth none`; beside a proof it says which user is meant. */
  readonly userId?: string;
  /**
   * Gives a JSON Web Token. Asked before each connection unless the last one is still good, before
   * the token expires, and when the server refuses it. If it fails, it is asked again, for ever. Gives `null`,
   * or throws `SignedOut`, when nobody is signed in: the client then closes.
   */
  readonly getToken?: () => string | null | Promise<string | null>;
  /**
   * Signs a time with the device's key, for each connection and each read of state. `timestamp` is
   * the Unix time in seconds to sign, never the same twice from one client while the clock goes on.
   */
  readonly signDevice?: (timestamp: number) => DeviceProof | Promise<DeviceProof>;
  /**
   * The kinds of events to be sent, names of 1 to 32 bytes, at most 1,024 in all. Default: all. An event of another
   * kind does not come later either: fetch the state when a kind is added.
   */
  readonly kinds?: readonly string[];
  /** Where the place in the stream is kept. Default: in memory, for this client alone. */
  readonly cursorStore?: CursorStore;
  /**
   * What to do when a handler fails: call it again with the same event, 1 to 30 s later, until it works (`retry`,
   * the default); report it and go on (`skip`; a reset is called again all the same); or close the client (`close`). A
   * function says which, each time.
   */
  readonly onHandlerError?:
    | HandlerVerdict
    | ((error: RealtimeError, event: RealtimeEvent | ResetEvent, attempt: number) => HandlerVerdict);
  /** A handler that takes longer, in ms, is reported, and waited for. Default: 30,000. */
  readonly handlerTimeoutMs?: number;
  /** A call of the store that takes longer, in ms, has failed. Default: 5,000. */
  readonly storeTimeoutMs?: number;
  /** A call of `getToken` or `signDevice` that takes longer, in ms, has failed. Default: 30,000. */
  readonly proofTimeoutMs?: number;
  /**
   * Given what the library does and what goes wrong. Proofs are left out. Default: warnings go to the console, and
   * so do errors that no handler of `error` is there for.
   */
  readonly logger?: (entry: LogEntry) => void;
  /** Frames that may wait for the handlers. Default: `QUEUE_FRAMES_MAX`, 10,000. */
  readonly queueFramesMax?: number;
  /** Time for a connection's hello, in ms. Default: `HELLO_TIMEOUT_MS`, 20,000. */
  readonly helloTimeoutMs?: number;
  /** Time for an answer to a ping, in ms. Default: `PONG_TIMEOUT_MS`, 10,000. */
  readonly pongTimeoutMs?: number;
  /** First and longest wait before a new connection, in ms. Default: 1,000 and 30,000. */
  readonly backoff?: { readonly firstMs?: number; readonly longestMs?: number };
  /** The WebSocket to use. Default: the global one, which Node has from version 22 on. */
  readonly WebSocket?: WebSocketConstructor;
  /** The fetch to read state with. Default: the global one. */
  readonly fetch?: typeof globalThis.fetch;
  /**
   * What tabs with one store do: have one connection, whose events each of them is given (`share`, the default), or
   * have a connection each (`each`).
   */
  readonly tabs?: 'share' | 'each';
  /** Web Locks. Default: `navigator.locks`; `null` for none, and then each tab has a connection. */
  readonly locks?: LockManagerLike | null;
  /** Random numbers from 0 to below 1, for the jitter. Default: `Math.random`. */
  readonly random?: () => number;
}

/** What a logger is given. */
export interface LogEntry {
  readonly level: 'info' | 'warn' | 'error';
  /** `state`, `error`, `reset` or `unhandled`. */
  readonly event: string;
  /** For people. */
  readonly message: string;
  /** With `state`. */
  readonly state?: ClientState;
  /** With `error`. */
  readonly error?: RealtimeError;
}

/** The settings of `connect()`. */
export interface ConnectOptions {
  /** The cursor of a read of state, from which to go on instead of from the store's. */
  readonly since?: string | null;
}

/** What `sync()` keeps, and how. */
export interface SyncOptions<State, Events extends object = EventKinds> {
  /** Fetches the state, with the cursor as of which it is. Tried again until it works, as a failed handler is. */
  readonly load: (context: HandlerContext) => Promise<{ state: State; cursor: string | null }>;
  /** The state after an event. */
  readonly apply: (state: State, event: RealtimeEvent<Events>) => State;
}

/** State that follows the events. */
export interface Synced<State> {
  /** The state; `undefined` until it is loaded. Another one after each change, the same until then. */
  getSnapshot(): State | undefined;
  /** Calls `changed` after each change. Returns what ends that. */
  subscribe(changed: () => void): () => void;
  /** Ends it, and closes the client. */
  stop(): Promise<void>;
}

/** The settings of a read of state. */
export interface ReadOptions {
  /** Ends the read: it rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** State, and where in the stream it was read. */
export interface StateRead<Row> {
  readonly rows: Row[];
  /** To connect with; `null` in a database without a log. */
  readonly cursor: string | null;
  /** There are newer rows than one answer holds. No event will tell of them. */
  readonly more: boolean;
}

/** A message to a device that is not delivered. */
export interface PendingMessage {
  readonly id: string;
  readonly logical_msg_id: string;
  readonly chat_id: string | null;
  readonly from_user_id: string | null;
  readonly from_device_id: string | null;
  readonly to_user_id: string | null;
  readonly to_device_id: string | null;
  readonly header: unknown;
  readonly ciphertext: string;
  /** ISO 8601. */
  readonly created_at: string | null;
}

/** A session request to a device that it has not answered. */
export interface PendingSession {
  readonly id: string;
  readonly sender_device_id: string;
  readonly recipient_device_id: string;
  readonly ephemeral_pubkey: string;
  readonly sender_prekey_pub: string;
  readonly otpk_used: string;
  readonly ciphertext: string;
  readonly state: string;
  /** ISO 8601, without an offset. */
  readonly created_at: string | null;
}

/** One of a user's devices with its public keys. */
export interface Device {
  readonly id: string;
  readonly user_id: string;
  readonly identity_pubkey: string;
  readonly prekey_pubkey: string;
  readonly signed_prekey_pub: string;
  readonly signed_prekey_sig: string;
  readonly one_time_prekeys: unknown;
  readonly device_label: string | null;
  /** ISO 8601, without an offset. */
  readonly created_at: string | null;
}
