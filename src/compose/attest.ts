// Signing, verifying and auditing a folder as the main thread sees them: promises. The work, which hashes all of a
// folder, has a thread of its own.

import type { SignedFolder } from '../attest/attest.js';
import type { Audit } from '../attest/audit.js';
import { runInThread } from '../base/channel.js';

export interface SignRequest {
  readonly dir: string;
  /** Private key, PEM. */
  readonly key: string;
  readonly certificates?: readonly string[] | undefined;
  readonly out?: string | undefined;
  readonly sigstore?: boolean | undefined;
  /** No statements are written before it is signed. */
  readonly bare?: boolean | undefined;
  /** The run that trained it, where temper.json does not lead to it. */
  readonly run?: string | undefined;
}
export interface Signed extends SignedFolder {
  /** Names of the statements that were written to `attestations`. */
  readonly statements: readonly string[];
}
export interface VerifyFolderRequest {
  readonly dir: string;
  /** Files with public keys and certificates that are trusted. */
  readonly keys?: readonly string[] | undefined;
  /** Who must have signed, of certificates. */
  readonly identity?: string | undefined;
  /** Folder of the base, where temper.json does not lead to it. */
  readonly model?: string | undefined;
  /** Without a PASS, or somebody trusted who answers for it, the exit code is 10, also where there was no gate. */
  readonly requireGate?: boolean | undefined;
}
export interface AuditRequest extends VerifyFolderRequest {
  /** What is missing or cannot be checked counts. */
  readonly strict?: boolean | undefined;
  /** Where the page goes. */
  readonly html?: string | undefined;
}
export type AttestCalls = {
  readonly verify: { readonly request: VerifyFolderRequest; readonly event: number; readonly result: Audit };
  readonly audit: { readonly request: AuditRequest; readonly event: number; readonly result: Audit };
  readonly sign: { readonly request: SignRequest; readonly event: number; readonly result: Signed };
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
 * Writes signed statements about a model's folder into its `attestations` (its gate's result and figures, where it
 * comes from, a bill of materials), then signs every file of it in the OpenSSF model-signing format.
 * @throws {ConfigError} sign_key, sign_refused, path_not_found, output_unwritable · {IntegrityError} gate_evidence,
 * bad_provenance, bad_run · the signal's reason
 */
export const sign = call('sign');
/**
 * Checks what a folder that was released says of itself, offline. What is wrong is a finding, never thrown.
 * @throws {ConfigError} sign_key, path_not_found · the signal's reason
 */
export const verifyRelease = call('verify');
/** The same as one page. @throws as verifyRelease, and output_unwritable */
export const audit = call('audit');
