/** Reads what the server sends. Pure; fails with a `RealtimeError` of kind `frame`. */

import { RealtimeError } from './errors.js';
import type { RealtimeEvent, ResetEvent } from './types.js';

export interface Hello {
  readonly type: 'hello';
  readonly cursor: string | null;
  readonly heartbeat_ms: number;
  readonly resumed: boolean;
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

/** The texts that a frame must have which is handed on. */
const TEXTS: Record<string, string[]> = {
  message: ['user_id'],
  session: ['user_id', 'sender_device_id', 'receiver_device_id'],
  device: ['user_id'],
  reset: ['reason'],
};
/** Whether frames of the type go to handlers. */
export const isHanded = (type: string): boolean => Object.hasOwn(TEXTS, type);

/** The frame in a WebSocket message's data. */
export function readFrame(data: unknown): Frame {
  try {
    const frame = JSON.parse(data as string) as Fields & { type: string };
    const { type, id = 0, cursor = null } = frame;
    const isWhole =
      typeof type === 'string' &&
      Number.isSafeInteger(id) &&
      (cursor === null || typeof cursor === 'string') &&
      (!isHanded(type) || TEXTS[type]!.every((name) => typeof frame[name] === 'string')) &&
      (type !== 'hello' || (frame.heartbeat_ms as number) >= 0) &&
      (type !== 'goaway' || (frame.retry_after_ms as number) >= 0);
    if (isWhole) return frame as unknown as Frame;
  } catch {
    // No JSON, or null.
  }
  throw new RealtimeError('frame', `not a frame: ${`${data}`.slice(0, 200)}`);
}
