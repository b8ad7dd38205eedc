// Entry of the thread that hashes a file while it comes: it follows the bytes that are there without a gap.
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { type Call, serve } from '../base/channel-worker.js';
import { hashOf } from './file-digest.js';
import type { DigestKind } from './listing.js';

export interface FollowRequest {
  readonly path: string;
  readonly size: number;
  readonly algorithm: DigestKind;
  /** One i64: bytes that are there from the beginning. */
  readonly prefix: SharedArrayBuffer;
}
export type HashCalls = {
  readonly follow: { readonly request: FollowRequest; readonly event: never; readonly result: string };
};

const PIECE_BYTES = 1 << 20;
/** Pieces between two looks at messages. */
const BURST = 8;
const POLL_MS = 2;

async function follow({ path, size, algorithm, prefix }: FollowRequest, { signal }: Call<never>): Promise<string> {
  const hash = hashOf(algorithm, size);
  const there = new BigInt64Array(prefix);
  const piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    for (let at = 0, burst = 0; at < size; ) {
      signal.throwIfAborted();
      const ready = Number(Atomics.load(there, 0)) - at;
      // Small pieces cost more than they are worth, but for the last one.
      if (ready < PIECE_BYTES && at + ready < size) {
        await wait(POLL_MS);
        continue;
      }
      const n = readSync(fd, piece, 0, Math.min(ready, PIECE_BYTES), at);
      if (n === 0) throw new Error(`${path}: ends at ${at}, wanted ${size} bytes`);
      hash.update(n === PIECE_BYTES ? piece : piece.subarray(0, n));
      at += n;
      if (++burst % BURST === 0) await wait(0);
    }
    return hash.digest('hex');
  } finally {
    closeSync(fd);
  }
}

await serve<HashCalls, null>(() => ({ info: null, handlers: { follow } }));
