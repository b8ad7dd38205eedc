// Signing, verifying and auditing a folder as the main thread sees them: promises. The work, which hashes all of a
// folder, has a thread of its own.

import type { SignedFolder } from '../attest/attest.js';
import { runInThread } from '../base/channel.js';

export interface SignRequest {
  readonly dir: string;
  /** Private key, PEM. */
  readonly key: string;
  readonly certificates?: readonly string[] | undefined;
  readonly out?: string | undefined;
  readonly sigstore?: boolean | undefined;
}
export type AttestCalls = {
  readonly sign: { readonly request: SignRequest; readonly event: number; readonly result: SignedFolder };
};
export interface AttestCallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told of bytes that were read. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
}
const call =
  <K extends keyof AttestCalls & string>(name: K) =>
  (
    request: AttestCalls[K]['request'],
    { signal, onProgress }: AttestCallOptions = {},
  ): Promise<AttestCalls[K]['result']> =>
    runInThread<AttestCalls, K>('compose/attest-worker.js', name, request, { signal, onEvent: onProgress });

/**
 * Signs every file of a folder in the OpenSSF model-signing format.
 * @throws {ConfigError} sign_key, sign_refused, path_not_found, output_unwritable · the signal's reason
 */
export const sign = call('sign');
