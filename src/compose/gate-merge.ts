// `temper gate merge`: the shards of one gate as the gate that one run would have been, its decision and its reports.
import { cpSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ConfigError, IntegrityError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { readInputText } from '../base/inputs.js';
import { readJsonFile } from '../base/json-file.js';
import { type Decision, Subject } from '../gate/decision.js';
import { nextSteps } from '../gate/next.js';
import { mergeShards } from '../gate/run/merge.js';
import { loadSuite } from '../gate/suite.js';
import { decideFolder, type GateResult, LOCK_FILE, SUBJECT_FILE, SUITE_FILE, SUITE_FOLDER } from './gate.js';
import { PROOF_FILE, proofFor, proofText } from './gate-proof.js';
import { reportGate } from './gate-report.js';
import { LABELS_FILE } from './gate-tools.js';

/**
 * @throws {ConfigError} bad_run · {IntegrityError} bad_record: shards of different gates · what deciding throws
 */
export async function mergeGate(
  shards: readonly string[],
  given: string,
  signal: AbortSignal,
): Promise<Pick<GateResult, 'folder' | 'next'> & { readonly decision: Decision; readonly rows: number }> {
  const folder = resolve(given);
  const [first = ''] = shards;
  if (shards.some((shard) => resolve(shard) === folder))
    throw new ConfigError('bad_run', `${given}: is a shard itself, which would be lost; give another --out`, {
      folder,
    });
  makeFolders(folder);
  const rows = await mergeShards(shards, folder, signal);
  // What people said of outcomes that lay here before says nothing of these.
  rmSync(join(folder, LABELS_FILE), { force: true });
  for (const shard of shards)
    for (const name of [LOCK_FILE, SUBJECT_FILE])
      if (readInputText(join(shard, name), 'record') !== readInputText(join(first, name), 'record'))
        throw new IntegrityError('bad_record', `${join(shard, name)}: is not that of ${first}`, { folder: shard });
  for (const name of [LOCK_FILE, SUBJECT_FILE, SUITE_FOLDER])
    cpSync(join(first, name), join(folder, name), { recursive: true });
  const file = join(folder, SUBJECT_FILE);
  const bad = (what: string): IntegrityError => new IntegrityError('bad_record', `${file}: ${what}`, { file });
  const read = Subject.safeParse(readJsonFile(file, 'record', { next: 'run the shards again', missing: bad, bad }));
  if (!read.success) throw bad('is no subject of a gate');
  const decision = await decideFolder(folder, read.data, signal);
  const proof = shards.map((shard) => proofFor(shard, decision.lock ?? '')).find((p) => p !== null);
  if (proof) writeFileAtomic(join(folder, PROOF_FILE), proofText(proof));
  await reportGate({ folder }, signal);
  const { suite } = loadSuite(join(folder, SUITE_FOLDER, SUITE_FILE));
  return { decision, next: nextSteps(decision, suite), rows, folder };
}
