/** Reads what the server sends. Pure; fails with a `RealtimeError` of kind `frame`. */

import { RealtimeError } from './errors.js';
import type { RealtimeEvent, ResetEvent } from './types.js';

export interface Hello {
  readonly type: 'hello';
  readonly cursor: string | null;
  readonly heartbeat_ms: number;
  readonly resumed: boolean;
  /** How long the token is good; missing without one. */
  readonly expires_in_ms?: number | null;
}

/** Frames that ask for nothing but to be read, and those of types that a later server may have. */
export interface OtherFrame {
  readonly type: 'cursor' | 'pong' | 'goaway' | 'authenticated' | 'error' | 'other';
  readonly id?: number;
  readonly cursor?: string | null;
  readonly retry_after_ms?: number;
  readonly expires_in_ms?: number | null;
  readonly code?: string;
  readonly message?: string;
}

export type Frame = Hello | RealtimeEvent | ResetEvent | OtherFrame;

type Fields = Record<string, unknown>;

/** The texts that a frame of the type must have. No prototype: a type may be any text. */
const TEXTS = {
  __proto__: null,
  message: ['user_id'],
  session: ['user_id', 'sender_device_id', 'receiver_device_id'],
  device: ['user_id'],
  pending_session: ['user_id', 'sender_device_id', 'recipient_device_id', 'pending_session_id'],
  reset: ['reason'],
} as unknown as Record<string, string[] | undefined>;

/** The types that are no event's: the protocol's frames, and the names that it keeps for others. */
export const RESERVED =
  /^(hello|reset|cursor|ping|pong|error|goaway|auth|authenticated|revocation|truncated|event_failed|barrier|typing|presence|receipt|ack)$/;
/** Whether the frame goes to handlers: an event of any kind, or a reset. */
export const isHanded = ({ type, user_id }: Frame & { user_id?: unknown }): boolean =>
  type === 'reset' || (typeof user_id === 'string' && !RESERVED.test(type));

/** The frame in a WebSocket message's data. */
export function readFrame(data: unknown): Frame {
  try {
    const frame = JSON.parse(data as string) as Fields & { type: string };
    const { type, id = 0, cursor = null } = frame;
    const isWhole =
      typeof type === 'string' &&
      Number.isSafeInteger(id) &&
      (cursor === null || typeof cursor === 'string') &&
      // An event that says its `op` is of a table of one's own, whatever its kind is called.
      (frame.op !== undefined || !TEXTS[type]?.some((name) => typeof frame[name] !== 'string')) &&
      (type !== 'hello' || (frame.heartbeat_ms as number) >= 0) &&
      (type !== 'goaway' || (frame.retry_after_ms as number) >= 0);
    if (isWhole) return frame as unknown as Frame;
  } catch {
    // No JSON, or null.
  }
  throw new RealtimeError('frame', `not a frame: ${`${data}`.slice(0, 200)}`);
}
