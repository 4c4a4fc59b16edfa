/**
 * A place in IndexedDB, in the object store `places`: a record under the name, under [name, id] the ids since, and under
 * [0, name] the term and the frame.
 */

import { sharedStore } from './shared.js';
import type { CursorStore, Place } from './store.js';

const DATABASE = 'hushnet-realtime';
const PLACES = 'places';

/**
 * Keeps the place in the database `hushnet-realtime`. Each save is one transaction, and writes what is
 * new. Rejects with what IndexedDB says.
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

  /** Makes requests in one transaction, and waits until that is complete. Gives the last one's result. */
  async function transact<T>(
    mode: IDBTransactionMode,
    make: (places: IDBObjectStore) => IDBRequest<T>,
  ): Promise<T> {
    const database = await (opened ??= open());
    let transaction: IDBTransaction;
    try {
      transaction = database.transaction(PLACES, mode);
    } catch (cause) {
      // The connection has died, as in a page that was in the background: the next call opens another.
      opened = undefined;
      throw cause;
    }
    let request: IDBRequest<T>;
    try {
      request = make(transaction.objectStore(PLACES));
    } catch (cause) {
      // Of several requests all are made, or none.
      transaction.abort();
      throw cause;
    }
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  }

  /** No name is a number. */
  const held = [0, name];
  /** The ids since: arrays are after texts. */
  const sinceThen = (): IDBKeyRange => IDBKeyRange.bound([name], [name, []]);

  return sharedStore(`${DATABASE}:${name}`, {
    async load() {
      let place: IDBRequest<Place | undefined>;
      let position: IDBRequest<Partial<Place> | undefined>;
      const added = await transact<number[][]>('readonly', (all) => {
        place = all.get(name);
        position = all.get(held);
        return all.getAll(sinceThen());
      });
      const { result } = place!;
      return result ? { ...result, ...position!.result, ids: [...result.ids, ...added.flat()] } : null;
    },
    async save(change) {
      await transact('readwrite', (all) => {
        const { added, term, frame } = change;
        const whole = (): void => {
          const { cursor, ids, idsBefore } = change;
          all.delete(sinceThen());
          all.put({ cursor, ids, idsBefore }, name);
        };
        const position = all.get(held) as IDBRequest<Partial<Place> | undefined>;
        const known = all.getKey(name);
        known.onsuccess = () => {
          if (term! < position.result?.term!) return;
          // What is kept by nobody of a group is no place of a leader's stream.
          term ? all.put({ term, frame }, held) : all.delete(held);
          // What was cleared meanwhile has nothing to add to.
          added && known.result ? all.put(added, [name, added[0]!]) : whole();
        };
        return known;
      });
    },
    clear: () =>
      transact('readwrite', (all) => {
        all.delete(sinceThen());
        all.delete(held);
        return all.delete(name);
      }),
  });
}
