// Attestations of a folder that is released: made of what its gate and its run left behind, signed, and the folder
// signed as a whole.
import { basename, join, resolve } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { versions } from '../base/machine.js';
import { canonicalJson, type JsonObject } from '../verdict-log/canonical.js';
import { BOM_FILE, bomOf } from './bom.js';
import { signBundle } from './bundle.js';
import { IS_MODEL } from './check-signature.js';
import { ATTESTATIONS, OVERRIDE_FILE, readEvidence } from './evidence.js';
import { Folder, type HashOptions, isBelow } from './folder.js';
import type { SigningKey } from './keys.js';
import { manifestStatement, SIGNATURE_FILE } from './model-signature.js';
import { originOf } from './origin.js';
import * as predicates from './predicates.js';
import { PROBE_FOLDER, probeResult, readProbe } from './probe.js';
import { type Subject, statementOf } from './statement.js';

/** Of reports and statements, which are made of the evidence, and of the probe, of which there is one by itself. */
const MADE = [ATTESTATIONS, OVERRIDE_FILE, PROBE_FOLDER] as const;

/** @throws {ConfigError} sign_refused: it holds no model */
export async function subjectsOf(folder: Folder, adapter: string | null): Promise<Subject[]> {
  const names = folder.entries.flatMap((e) =>
    e.kind === 'file' && !e.name.includes('/') && IS_MODEL.test(e.name) ? [e.name] : [],
  );
  if (names.length === 0)
    throw new ConfigError(
      'sign_refused',
      `${folder.dir}: holds no weights; give the folder of an adapter or an export`,
      {
        dir: folder.dir,
      },
    );
  const subjects: Subject[] =
    adapter === null ? [] : [{ name: 'adapter', digest: { sha256: adapter.replace(/^sha256:/, '') } }];
  for (const name of names) subjects.push({ name, digest: { sha256: await folder.sha256(name) } });
  return subjects;
}
/** Files of a gate's folder that its statements name. */
export const evidenceFiles = (folder: Folder): readonly string[] =>
  folder.entries.flatMap((e) => (e.kind === 'file' && !isBelow(e.name, MADE) ? [e.name] : []));

export interface AttestOptions extends HashOptions {
  /** The run that trained it, where the folder does not lead to it. */
  readonly run?: string | undefined;
  /** What the model is called; default: its folder's name. */
  readonly name?: string | undefined;
  /** Digest of the folder's adapter as the gate names it; null: it holds none. */
  readonly adapter: string | null;
  /** When it is said, ISO 8601; default: now. */
  readonly time?: string | undefined;
}

/**
 * Statements about a folder, by the names of their files: what its gate decided, what it was trained from, and a bill
 * of materials. A gate that did not pass has no simple verification result.
 * @param gate the gate's folder; null: there was none
 * @throws {ConfigError} sign_refused · {IntegrityError} gate_evidence, bad_provenance, bad_run · the signal's reason
 */
export async function attestGate(
  gate: string | null,
  subject: string,
  key: SigningKey,
  options: AttestOptions,
): Promise<Record<string, string>> {
  const time = options.time ?? new Date().toISOString();
  const evidence = gate === null ? null : await readEvidence(gate, options);
  const subjects = await subjectsOf(new Folder(subject, options), options.adapter);
  const origin = originOf(subject, options.run);
  const files: Record<string, string> = {};
  const say = (name: string, type: string, predicate: JsonObject): void => {
    files[`${name}.json`] = signBundle(statementOf(subjects, type, predicate), key);
  };
  if (evidence) {
    const names = evidenceFiles(evidence.folder);
    say(
      'test-result',
      predicates.TEST_RESULT,
      predicates.testResult(evidence, await predicates.configurationOf(evidence, names)),
    );
    say('eval-result', predicates.EVAL_RESULT, predicates.evalResult(evidence, versions().temper, time));
    if (evidence.decision.decision === 'PASS')
      say('svr', predicates.SVR, predicates.simpleVerification(evidence, time));
    const probe = await readProbe(evidence.folder);
    if (probe) say('probe', predicates.PROBE_RESULT, probeResult(probe));
  }
  if (origin.training) say('provenance', predicates.PROVENANCE, predicates.provenance(origin.training));
  const bom = bomOf({
    name: options.name ?? basename(resolve(subject)),
    subject: subjects,
    evidence,
    run: origin.training,
    base: origin.base,
    tool: versions().temper,
    time,
  });
  say('bom', predicates.BOM, bom);
  files[BOM_FILE] = canonicalJson(bom);
  return files;
}
/** The same, written to the folder's `attestations`. */
export async function writeAttestations(
  gate: string | null,
  subject: string,
  key: SigningKey,
  options: AttestOptions,
): Promise<readonly string[]> {
  const files = await attestGate(gate, subject, key, options);
  makeFolders(join(subject, ATTESTATIONS));
  for (const [name, text] of Object.entries(files)) writeFileAtomic(join(subject, ATTESTATIONS, name), text);
  return Object.keys(files);
}

export interface SignedFolder {
  readonly file: string;
  readonly files: number;
  /** Who signed: the digest of the public key. */
  readonly key: string;
  readonly algorithm: string;
}
/**
 * Signs every file of a folder: an OpenSSF model signature beside them.
 * @param out where the signature goes; default: `model.sig` in the folder
 * @throws {ConfigError} sign_refused, output_unwritable · the signal's reason
 */
export async function signFolder(
  dir: string,
  key: SigningKey,
  { out = join(dir, SIGNATURE_FILE), ...options }: HashOptions & { readonly out?: string | undefined } = {},
): Promise<SignedFolder> {
  const folder = new Folder(dir, options);
  const statement = await manifestStatement(folder);
  writeFileAtomic(out, signBundle(statement, key));
  const { resources } = (statement as { readonly predicate: { readonly resources: readonly unknown[] } }).predicate;
  return { file: out, files: resources.length, key: key.hint, algorithm: key.algorithm };
}
