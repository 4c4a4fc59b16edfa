/** Every bound of the library, named. Times are in milliseconds. */

/** Frames that wait for the handlers; about 300 bytes each. Past it the socket is closed. */
export const QUEUE_FRAMES_MAX = 10_000;
/** Characters of JSON that wait for the handlers, besides the frame that goes past it: 64 of the largest events. */
export const QUEUE_CHARACTERS_MAX = 2 ** 26;
/** Time from the start of a connection to its hello, the handshakes of TCP and TLS included. */
export const HELLO_TIMEOUT_MS = 20_000;
/** A shorter heartbeat is taken for this one: silence of no time at all would be asked about for ever. */
export const HEARTBEAT_SHORTEST_MS = 100;
/** Time for anything to come after a ping. */
export const PONG_TIMEOUT_MS = 10_000;
/** The same after a sign that the network has changed: the user looks at the page and waits. */
export const SUSPECT_TIMEOUT_MS = 4_000;
/** First wait before a new connection, before its random share is taken. */
export const BACKOFF_FIRST_MS = 1_000;
/** Longest wait before a new connection. */
export const BACKOFF_LONGEST_MS = 30_000;
/** The shortest wait before a failed handler is called again. */
export const RETRY_FIRST_MS = 1_000;
/** The longest. */
export const RETRY_LONGEST_MS = 30_000;
/** A handler that takes longer is reported, and waited for. */
export const HANDLER_TIMEOUT_MS = 30_000;
/** Kinds that nobody handles are warned of, each once, for so many kinds. */
export const WARNED_KINDS_MAX = 256;
/** A call of the store that takes longer has failed. */
export const STORE_TIMEOUT_MS = 5_000;
/** A proof that takes longer has failed. */
export const PROOF_TIMEOUT_MS = 30_000;
/** `close()` waits so long for the handlers that run. */
export const CLOSE_TIMEOUT_MS = 4_500;
/** Events are handled, at most, before the place is saved. */
export const SAVE_EVENTS_MAX = 100;
/** Handled events are saved so long after the first of them, at most. */
export const SAVE_INTERVAL_MS = 50;
/** Refusals with 4001 in a row, each answered with a new proof, before the client gives up. */
export const PROOF_TRIES_MAX = 3;
/** After so many tries in a row of which none was accepted, what may be wrong is reported. */
export const REFUSED_TRIES = 3;
/** A token is replaced this long before it expires, or at three quarters of a shorter life. */
export const REFRESH_BEFORE_MS = 60_000;
/** How often it is looked whether the machine has slept or its clock was set. */
export const WATCH_INTERVAL_MS = 5_000;
/** A watch that is this late, or whose clocks differ by this, has slept. Hidden tabs are throttled to one in a minute. */
export const WAKE_GAP_MS = 5_000;
/** Longest time that a timer takes: the platform's own bound. */
export const TIMER_MAX_MS = 2 ** 31 - 1;
/** Reads of state that are answered with 429 or 503 are repeated so often, at most. */
export const READ_TRIES_MAX = 3;
/** Longest `Retry-After` that is waited for; after a longer one the read fails and says so. */
export const RETRY_AFTER_MAX_MS = 30_000;
/** Tokens are not asked for more often than this, however short their life. */
export const REFRESH_SOONEST_MS = 1_000;
/** Bytes of the option `kinds` in UTF-8, joined by commas, at most: the server's bound. */
export const KINDS_BYTES_MAX = 1_024;
/** Bytes of one of its names, at most: likewise. */
export const KIND_BYTES_MAX = 32;
/** How often the tabs of a store ask each other whether they are there. */
export const ASK_INTERVAL_MS = 2_500;
/** A leading tab that is silent for so long has its lock taken, and one that follows is not waited for. */
export const SILENT_TIMEOUT_MS = 10_000;
/** A leading tab that is hidden for so long gives way to one that is seen. */
export const HIDDEN_TIMEOUT_MS = 5_000;
/** Time for the other tabs to join the one that has taken over, before it saves. */
export const SETTLE_MS = 1_000;
/** Tabs whose place is waited for, at most. */
export const MEMBERS_MAX = 64;
/** Earlier terms of a stream that a leading tab knows, at most. */
export const TERMS_MAX = 8;
/**
 * Cursors, at most, since which a tab knows all ids. Two are the protocol's. The others are for tabs that take over from one
 * another, and are ahead of each other by what is on its way.
 */
export const CURSORS_MAX = 16;
/** The newest cursors that a tab which was alone can meet the others by, at most. */
export const JOIN_CURSORS = 3;
