// Answers that a later request may go on from or ask for again: of /v1/responses, and of chat completions that were to
// be stored. Bounded in number and bytes, each for a time, the oldest go first; whoever asks sees only those of the key
// that they were made with.
import { setImmediate } from 'node:timers/promises';
import type { ChatMessage } from '../harmony/chat-row.js';
import type { JsonBytes } from './json-pieces.js';
import { answerOf, recordOf } from './stored-record.js';

interface Stored {
  readonly id: string;
  /** Name of the key; null: no keys. */
  readonly owner: string | null;
}
export interface StoredResponse extends Stored {
  /** As the client got it. */
  readonly response: Readonly<Record<string, unknown>>;
  /** Items that the request brought, in order. */
  readonly input: readonly Readonly<Record<string, unknown>>[];
  /** The whole conversation up to and with the answer, thoughts that were not shown among it; without instructions. */
  readonly history: readonly ChatMessage[];
}
export interface StoredChat extends Stored {
  /** As the client got it: of an object, which is not read again, however much it says. */
  readonly completion: JsonBytes;
  readonly model: string;
  /** What it is labelled with. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Messages that the request brought, as they are listed. */
  readonly messages: JsonBytes;
}
export type StoredAnswer = StoredResponse | StoredChat;

/** Which chat completions of an owner, in the order of their coming. */
export interface ChatOrder {
  /** Those after that one, which is there; null: from the first on. */
  readonly after: string | null;
  readonly newestFirst: boolean;
}
/** What servers that share a store have of each other's answers. */
export interface SharedAnswers {
  /** In place of one that is kept as it was. @returns whether it was · @throws as `put` */
  exchange(before: StoredResponse, after: StoredResponse): Promise<boolean>;
}
export interface ResponseStore {
  /** Other servers may keep answers in it at the same time; absent: none do. */
  readonly shared?: SharedAnswers | undefined;
  /** Keeps it whole, or not at all. @throws {ConfigError} {CheckpointError} what writing refuses */
  put(answer: StoredAnswer): Promise<void>;
  /** null: not there, no longer, another key's, or no response */
  get(id: string, owner: string | null): Promise<StoredResponse | null>;
  /** The same of chat completions. */
  chat(id: string, owner: string | null): Promise<StoredChat | null>;
  chats(owner: string | null, order: ChatOrder): AsyncGenerator<StoredChat, void, void>;
  /** In place of one that is kept: it keeps its place among the others, and its time. @throws as `put` */
  replace(chat: StoredChat): Promise<void>;
  /** @returns whether it was there */
  delete(id: string, owner: string | null): Promise<boolean>;
}
export interface StoreLimits {
  readonly entries: number;
  /** Of all of them, as they are kept. */
  readonly bytes: number;
  /** How long one is kept, ms. */
  readonly keepMs: number;
}
export const DEFAULT_STORE: StoreLimits = { entries: 10_000, bytes: 256 << 20, keepMs: 30 * 24 * 3600 * 1000 };
/** What ids of chat completions begin with. */
export const CHAT_PREFIX = 'chatcmpl-';

/** The two kinds of what is found under an id. */
export function byKind(
  find: (id: string, owner: string | null) => Promise<StoredAnswer | null>,
): Pick<ResponseStore, 'get' | 'chat'> {
  return {
    async get(id, owner) {
      const found = await find(id, owner);
      return found && 'response' in found ? found : null;
    },
    async chat(id, owner) {
      const found = await find(id, owner);
      return found && 'completion' in found ? found : null;
    },
  };
}
/**
 * Chat completions one after the other, read when they are asked for; those that went meanwhile are left out.
 * @param ids oldest first
 */
export async function* chatsOf(
  ids: readonly string[],
  { after, newestFirst }: ChatOrder,
  read: (id: string) => Promise<StoredChat | null>,
): AsyncGenerator<StoredChat, void, void> {
  const ordered = newestFirst ? ids.toReversed() : ids;
  for (const id of ordered.slice(after === null ? 0 : ordered.indexOf(after) + 1)) {
    const chat = await read(id);
    if (chat) yield chat;
    await setImmediate(); // a page may look through many
  }
}

/** In memory: gone with the process. @param now for tests */
export function createMemoryStore(limits: StoreLimits = DEFAULT_STORE, now: () => number = Date.now): ResponseStore {
  interface Kept {
    readonly record: JsonBytes;
    readonly owner: string | null;
    readonly expires: number;
  }
  const kept = new Map<string, Kept>();
  let bytes = 0;
  const drop = (id: string): boolean => {
    bytes -= kept.get(id)?.record.length ?? 0;
    return kept.delete(id);
  };
  const has = (id: string, owner: string | null): boolean => {
    const found = kept.get(id);
    return found !== undefined && found.owner === owner && found.expires > now();
  };
  const { get, chat } = byKind(async (id, owner) => {
    const found = kept.get(id);
    return found && has(id, owner) ? answerOf(found.record) : null;
  });
  return {
    get,
    chat,
    async put(answer) {
      const record = await recordOf(answer);
      if (record.length > limits.bytes) return;
      drop(answer.id);
      // In the order of their coming, so of their going too.
      for (const [id, { expires }] of kept) {
        if (expires > now() && kept.size < limits.entries && bytes + record.length <= limits.bytes) break;
        drop(id);
      }
      kept.set(answer.id, { record, owner: answer.owner, expires: now() + limits.keepMs });
      bytes += record.length;
    },
    chats(owner, order) {
      const ids = [...kept.keys()].filter((id) => id.startsWith(CHAT_PREFIX) && has(id, owner));
      return chatsOf(ids, order, (id) => chat(id, owner));
    },
    async replace(answer) {
      const record = await recordOf(answer),
        before = kept.get(answer.id);
      if (!before || !has(answer.id, answer.owner)) return;
      bytes += record.length - before.record.length;
      kept.set(answer.id, { ...before, record }); // where it stood
    },
    delete: async (id, owner) => has(id, owner) && drop(id),
  };
}
