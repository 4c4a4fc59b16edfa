/**
 * For React Native: a store, and an application's life. Nothing of React Native is imported: the application gives
 * its AsyncStorage, AppState and NetInfo.
 */

import type { RealtimeClient } from './client.js';
import { type CursorStore, type Place, placeOf } from './stores/store.js';

/** The part of `@react-native-async-storage/async-storage` that is used. */
export interface AsyncStorageLike {
  getItem(key: string): Promise<string | null>;
  setItem(key: string, value: string): Promise<unknown>;
  removeItem(key: string): Promise<unknown>;
}

/** The part of React Native's `AppState` that is used. */
export interface AppStateLike {
  readonly currentState: string | null;
  addEventListener(type: 'change', listener: (state: never) => void): { remove(): void };
}

/** The part of `@react-native-community/netinfo` that is used. */
export interface NetInfoLike {
  addEventListener(listener: (state: { readonly isConnected: boolean | null }) => void): () => void;
}

/**
 * Keeps the place in an AsyncStorage, under `hushnet-realtime:<name>`. Each save writes all ids since the cursor
 * before.
 *
 * @param name Of the user: another user needs another name.
 */
export function asyncStorageStore(storage: AsyncStorageLike, name: string): CursorStore {
  const key = `hushnet-realtime:${name}`;
  return {
    load: async () => JSON.parse((await storage.getItem(key)) ?? 'null') as Place | null,
    save: async (change) => void (await storage.setItem(key, JSON.stringify(placeOf(change)))),
    clear: async () => void (await storage.removeItem(key)),
  };
}

/**
 * Lets the client's connection go in the background, where the system would cut it, and opens one when the
 * application is active again. An inactive application, as under a call or a system dialog, keeps it. With NetInfo,
 * a network that has come back is used at once. Returns what ends this; closing the client is left to whoever has
 * made it.
 */
export function followApp(
  client: RealtimeClient,
  { AppState, NetInfo }: { readonly AppState: AppStateLike; readonly NetInfo?: NetInfoLike },
): () => void {
  let isPaused = false;
  const follow = (state: string | null): void => {
    if (state === 'background') {
      isPaused = true;
      client.pause();
    } else if (state === 'active') {
      if (isPaused) client.resume();
      else client.probe();
      isPaused = false;
    }
  };
  const states = AppState.addEventListener('change', follow);
  const stopNetwork = NetInfo?.addEventListener(({ isConnected }) => {
    if (isConnected !== null) client.probe();
  });
  if (AppState.currentState === 'background') follow('background');
  return () => {
    states.remove();
    stopNetwork?.();
  };
}
