// Kept answers in the store: every server that shares it can go on from them.
import { parseJson } from '../base/json.js';
import { createDocuments } from '../store/documents.js';
import type { Store } from '../store/store.js';
import { JsonBytes } from './json-pieces.js';
import { byKind, CHAT_PREFIX, chatsOf, DEFAULT_STORE, type ResponseStore, type StoreLimits } from './response-store.js';
import { answerOf, recordOf } from './stored-record.js';

/** @param now for tests */
export function createDocumentStore(
  store: Store,
  limits: StoreLimits = DEFAULT_STORE,
  now: () => number = Date.now,
): ResponseStore {
  const documents = createDocuments(store, limits, now);
  const { get, chat } = byKind(async (id, owner) => {
    const text = await documents.get(id, owner);
    if (text === null) return null;
    try {
      const answer = answerOf(new JsonBytes([Buffer.from(text)]), parseJson);
      return answer.id === id && answer.owner === owner ? answer : null;
    } catch {
      return null; // written by another version, or over by somebody else
    }
  });
  return {
    shared:
      store.kind === 'postgres'
        ? {
            async exchange(before, after) {
              const [was, is] = await Promise.all([recordOf(before), recordOf(after)]);
              return documents.replace(after.id, after.owner, is.text, was.text);
            },
          }
        : undefined,
    get,
    chat,
    put: async (answer) => documents.put(answer.id, answer.owner, (await recordOf(answer)).text),
    async *chats(owner, order) {
      yield* chatsOf(await documents.ids(owner, CHAT_PREFIX), order, (id) => chat(id, owner));
    },
    async replace(answer) {
      await documents.replace(answer.id, answer.owner, (await recordOf(answer)).text);
    },
    delete: (id, owner) => documents.delete(id, owner),
  };
}
