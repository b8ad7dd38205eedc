// Large bodies are read in a thread of their own, which the first one starts: 2 MiB of JSON that is looked at letter by
// letter would hold up every stream for as long.
import { type Channel, LEAST_YOUNG_MIB, openChannel } from '../base/channel.js';
import { ApiError } from './api-error.js';
import type { ReadBody, ReaderName } from './readers.js';

/** An ApiError on its way between threads. */
export interface Refusal {
  readonly refused: Pick<ApiError, 'status' | 'type' | 'code' | 'message' | 'param' | 'retryAfter'>;
}
/** What a conversation may be. */
export interface Room {
  /** Tokens of prompt and answer. */
  readonly contextTokens: number;
  /** Characters of a text that are more tokens than these, however it is cut into them. */
  readonly mostText: number;
}
export type BodyCalls = {
  readonly read: {
    readonly request: {
      readonly name: ReaderName;
      /** Of the body, in order. */
      readonly pieces: readonly Uint8Array[];
      readonly tokens: number;
      readonly room: Room;
    };
    readonly event: never;
    readonly result: { readonly request: unknown } | Refusal;
  };
};

export class BodyThread {
  #opened: Promise<Channel<BodyCalls, null>> | null = null;
  #closed = false;

  /**
   * @param pieces gone afterwards, those whose memory is theirs alone
   * @param tokens most of an answer where the request does not say
   * @param room   for prompt and answer
   * @throws what the reader of that name throws
   */
  async read<K extends ReaderName>(
    name: K,
    pieces: readonly Uint8Array[],
    tokens: number,
    room: Room,
  ): Promise<ReadBody<K>> {
    try {
      const transfer = pieces
        .filter(({ buffer, byteLength }) => buffer instanceof ArrayBuffer && buffer.byteLength === byteLength)
        .map(({ buffer }) => buffer as ArrayBuffer);
      const got = await (await this.#channel()).call(
        'read',
        { name, pieces, tokens, room: { contextTokens: room.contextTokens, mostText: room.mostText } },
        { transfer },
      );
      if ('request' in got) return got.request as ReadBody<K>;
      const { status, type, code, message, param, retryAfter } = got.refused;
      throw new ApiError(status, type, code, message, param, retryAfter);
    } catch (e) {
      // One that ended is started again by the next.
      if ((e as { readonly code?: unknown }).code === 'worker_exit' && !this.#closed) this.#opened = null;
      throw e;
    }
  }
  #channel(): Promise<Channel<BodyCalls, null>> {
    if (!this.#opened) {
      this.#opened = openChannel<BodyCalls, null>('serve/body-worker.js', null, {
        name: 'bodies',
        youngMiB: LEAST_YOUNG_MIB,
      });
      this.#opened.catch(() => {
        this.#opened = null;
      });
    }
    return this.#opened;
  }
  async close(): Promise<void> {
    this.#closed = true;
    await (await this.#opened?.catch(() => null))?.close();
  }
}
