// Answers of /v1/responses that a later request may go on from. Bounded in number and bytes, each for a time, the
// oldest go first; whoever asks sees only those of the key that they were made with.
import type { ChatMessage } from '../harmony/chat-row.js';

export interface StoredResponse {
  readonly id: string;
  /** Name of the key; null: no keys. */
  readonly owner: string | null;
  /** As the client got it. */
  readonly response: Readonly<Record<string, unknown>>;
  /** Items that the request brought, in order. */
  readonly input: readonly Readonly<Record<string, unknown>>[];
  /** The whole conversation up to and with the answer, thoughts that were not shown among it; without instructions. */
  readonly history: readonly ChatMessage[];
}
export interface ResponseStore {
  /** Other servers may keep answers in it at the same time. */
  readonly shared?: boolean;
  /** Keeps it whole, or not at all. @throws {ConfigError} {CheckpointError} what writing refuses */
  put(response: StoredResponse): Promise<void>;
  /** null: not there, no longer, or another key's */
  get(id: string, owner: string | null): Promise<StoredResponse | null>;
  /** @returns whether it was there */
  delete(id: string, owner: string | null): Promise<boolean>;
}
export interface StoreLimits {
  readonly entries: number;
  /** Of all of them, as JSON. */
  readonly bytes: number;
  /** How long one is kept, ms. */
  readonly keepMs: number;
}
export const DEFAULT_STORE: StoreLimits = { entries: 10_000, bytes: 256 << 20, keepMs: 30 * 24 * 3600 * 1000 };

/** In memory: gone with the process. @param now for tests */
export function createMemoryStore(limits: StoreLimits = DEFAULT_STORE, now: () => number = Date.now): ResponseStore {
  const kept = new Map<string, { readonly json: string; readonly expires: number }>();
  let bytes = 0;
  const drop = (id: string): boolean => {
    bytes -= kept.get(id)?.json.length ?? 0;
    return kept.delete(id);
  };
  const get = async (id: string, owner: string | null): Promise<StoredResponse | null> => {
    const found = kept.get(id);
    if (!found || found.expires <= now()) return null;
    const response = JSON.parse(found.json) as StoredResponse;
    return response.owner === owner ? response : null;
  };
  return {
    async put(response) {
      const json = JSON.stringify(response);
      if (json.length > limits.bytes) return;
      drop(response.id);
      // In the order of their coming, so of their going too.
      for (const [id, { expires }] of kept) {
        if (expires > now() && kept.size < limits.entries && bytes + json.length <= limits.bytes) break;
        drop(id);
      }
      kept.set(response.id, { json, expires: now() + limits.keepMs });
      bytes += json.length;
    },
    get,
    delete: async (id, owner) => (await get(id, owner)) !== null && drop(id),
  };
}
