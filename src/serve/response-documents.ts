// Kept answers in the store: every server that shares it can go on from them.
import { parseJson } from '../base/json.js';
import { createDocuments } from '../store/documents.js';
import type { Store } from '../store/store.js';
import { jsonOfLarge } from './json-pieces.js';
import {
  byKind,
  CHAT_PREFIX,
  chatsOf,
  DEFAULT_STORE,
  type ResponseStore,
  type StoredAnswer,
  type StoreLimits,
} from './response-store.js';

/** @param now for tests */
export function createDocumentStore(
  store: Store,
  limits: StoreLimits = DEFAULT_STORE,
  now: () => number = Date.now,
): ResponseStore {
  const documents = createDocuments(store, limits, now);
  const { get, chat } = byKind(async (id, owner) => {
    const text = await documents.get(id, owner);
    return text === null ? null : (parseJson(text) as StoredAnswer);
  });
  return {
    shared: store.kind === 'postgres',
    get,
    chat,
    put: async (answer) => documents.put(answer.id, answer.owner, await jsonOfLarge(answer)),
    async *chats(owner, order) {
      yield* chatsOf(await documents.ids(owner, CHAT_PREFIX), order, (id) => chat(id, owner));
    },
    replace: (answer) => documents.replace(answer.id, answer.owner, JSON.stringify(answer)),
    delete: (id, owner) => documents.delete(id, owner),
  };
}
