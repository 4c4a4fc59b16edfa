/** A place in IndexedDB: one record for each name, in the object store `places`. */

import type { CursorStore, Place } from './store.js';

const DATABASE = 'hushnet-realtime';
const PLACES = 'places';

/**
 * Keeps the place in the database `hushnet-realtime`. Each event is one transaction, complete before
 * the next event is handed out. Rejects with what IndexedDB says.
 *
 * @param name Of the user: another user needs another name.
 */
export function indexedDbStore(name: string): CursorStore {
  let opened: Promise<IDBDatabase> | undefined;

  function open(): Promise<IDBDatabase> {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(PLACES);
    return new Promise((resolve, reject) => {
      request.onerror = () => {
        opened = undefined;
        reject(request.error);
      };
      request.onsuccess = () => {
        const database = request.result;
        // The user clears the site's data, or a later version in another tab needs the database.
        database.onversionchange = database.onclose = () => {
          database.close();
          opened = undefined;
        };
        resolve(database);
      };
    });
  }

  /** Makes one request in one transaction, and waits until that is complete. */
  async function transact<T>(
    mode: IDBTransactionMode,
    make: (places: IDBObjectStore) => IDBRequest<T>,
  ): Promise<T> {
    const database = await (opened ??= open());
    const transaction = database.transaction(PLACES, mode);
    const request = make(transaction.objectStore(PLACES));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  }

  return {
    sharedName: `${DATABASE}:${name}`,
    load: async () => (await transact<Place | undefined>('readonly', (all) => all.get(name))) ?? null,
    async save({ cursor, ids, idsBefore }) {
      await transact('readwrite', (all) => all.put({ cursor, ids, idsBefore }, name));
    },
    clear: () => transact('readwrite', (all) => all.delete(name)),
  };
}
