// Kept answers in the store: every server that shares it can go on from them.
import { parseJson } from '../base/json.js';
import { createDocuments } from '../store/documents.js';
import type { Store } from '../store/store.js';
import { DEFAULT_STORE, type ResponseStore, type StoredResponse, type StoreLimits } from './response-store.js';

/** @param now for tests */
export function createDocumentStore(
  store: Store,
  limits: StoreLimits = DEFAULT_STORE,
  now: () => number = Date.now,
): ResponseStore {
  const documents = createDocuments(store, limits, now);
  return {
    shared: store.kind === 'postgres',
    put: (response) => documents.put(response.id, response.owner, JSON.stringify(response)),
    async get(id, owner) {
      const text = await documents.get(id, owner);
      return text === null ? null : (parseJson(text) as StoredResponse);
    },
    delete: (id, owner) => documents.delete(id, owner),
  };
}
