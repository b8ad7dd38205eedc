// The chain behind a model: recipe, data, base, run, export. What of it is at hand is held against what temper.json
// says; what is not is said to be not.
import { existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { sha256File } from '../base/digest.js';
import { TemperError } from '../base/errors.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { shortDigest } from '../runs/named-digest.js';
import { readRun } from '../runs/run-folder.js';
import { recipeOf } from '../runs/trained.js';
import { ATTESTATIONS, type Evidence, GATE_FOLDER } from './evidence.js';
import { type Finding, Findings, some } from './findings.js';
import { type Folder, isBelow } from './folder.js';
import type { Origin } from './origin.js';

export interface OriginContext {
  readonly origin: Origin | null;
  readonly evidence: Evidence | null;
  /** Folder of the base, where the caller knows it. */
  readonly base?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The files of an export against temper.json. */
export async function checkFiles(folder: Folder, origin: Origin | null): Promise<readonly Finding[]> {
  const findings = new Findings('files');
  const files = origin?.record?.files;
  if (!files) {
    findings.add('missing', 'record', 'temper.json', 'the folder does not say what it holds and where it comes from');
    return findings.list;
  }
  const wrong: string[] = [];
  for (const [name, wanted] of Object.entries(files)) {
    const got = folder.has(name) ? await folder.sha256(name) : null;
    if (got === wanted) continue;
    wrong.push(name);
    findings.add(
      'failed',
      'digest',
      name,
      got === null
        ? 'was exported and is not there'
        : `digest is ${shortDigest(got)}, exported was ${shortDigest(wanted)}`,
    );
  }
  if (wrong.length === 0) findings.add('ok', 'digest', `${Object.keys(files).length} files`, 'as temper.json says');
  const known = new Set([...Object.keys(files), 'temper.json']);
  const more = folder.entries.filter(
    ({ name }) =>
      !known.has(name) &&
      !isBelow(name, [ATTESTATIONS, GATE_FOLDER, '.git', '.gitattributes', '.github', '.gitignore']) &&
      !/^[^/]+\.sig$/.test(name),
  );
  if (more.length > 0) findings.add('unchecked', 'more', some(more.map((e) => e.name)), 'temper.json does not name it');
  return findings.list;
}

async function checkData(findings: Findings, run: string, signal?: AbortSignal): Promise<void> {
  const hooks = signal ? { signal } : {};
  for (const { file, sha256 } of readRun(run)?.data ?? []) {
    const path = resolve(file);
    if (!existsSync(path) || !statSync(path).isFile())
      findings.add('unchecked', 'data', `rows of ${file}`, `sha256 ${shortDigest(sha256)}; the file is not at hand`);
    else if ((await sha256File(path, hooks)) === sha256)
      findings.add('ok', 'data', `rows of ${file}`, `those that were trained on, sha256 ${shortDigest(sha256)}`);
    else findings.add('failed', 'data', `rows of ${file}`, 'changed since they were trained on');
  }
}
/** Where the run's recipe has its base; null: it cannot be told any more. */
function baseOfRun(run: string | null | undefined): string | null {
  if (!run) return null;
  try {
    return recipeOf(run).loaded.recipe.model.base ?? null;
  } catch (e) {
    if (e instanceof TemperError) return null;
    throw e;
  }
}
async function checkBase(findings: Findings, dir: string, context: OriginContext): Promise<void> {
  const { origin, evidence, base, signal } = context;
  const judged = evidence?.decision.subject?.base?.replace(/^sha256:/, '');
  const wanted = origin?.base.digest ?? judged ?? null,
    what = origin?.base.digest ? `base ${origin.base.name}` : 'the base that the gate compared it with';
  if (wanted === null) {
    findings.add('missing', 'base', what, 'nothing names the base that it is for');
    return;
  }
  const said = origin?.record?.model;
  const at = base ?? (said === undefined ? baseOfRun(origin?.run) : resolve(dir, said));
  if (at === null || !existsSync(at)) {
    findings.add(
      'unchecked',
      'base',
      what,
      `digest ${shortDigest(wanted)}; the base is not at hand, name it with --model`,
    );
    return;
  }
  const got = await digestCheckpoint(at, signal ? { signal } : {});
  if (got === wanted) findings.add('ok', 'base', what, `the one that it was made for, digest ${shortDigest(wanted)}`);
  else
    findings.add(
      'failed',
      'base',
      what,
      `${at} has digest ${shortDigest(got)}, it was made for ${shortDigest(wanted)}`,
    );
}

/** Where it comes from, link by link. */
export async function checkOrigin(folder: Folder, context: OriginContext): Promise<readonly Finding[]> {
  const findings = new Findings('chain');
  const { origin, evidence, signal } = context;
  const training = origin?.training ?? null;
  if (!training)
    findings.add(
      'missing',
      'recipe',
      'recipe and data',
      origin?.record?.adapter === undefined ? 'nothing says how it was trained' : 'it was made elsewhere',
    );
  if (origin?.run) {
    const run = origin.run;
    const digests = readRun(run)?.digests;
    for (const key of ['recipe', 'data', 'tokenizer'] as const) {
      const [said, own] = [origin.record?.digests[key], digests?.[key]];
      if (said === undefined || own === undefined) continue;
      if (said === own) findings.add('ok', key, key, `${shortDigest(String(said))}, as the run in ${run} says`);
      else
        findings.add(
          'failed',
          key,
          key,
          `is ${shortDigest(String(said))} in temper.json, ${shortDigest(own)} in ${join(run, 'run.json')}`,
        );
    }
    await findings.attempt('data', 'the rows that were trained on', () => checkData(findings, run, signal));
  } else if (training)
    for (const key of ['recipe', 'data', 'tokenizer'] as const)
      if (training.digests[key] !== '')
        findings.add('unchecked', key, key, `digest ${shortDigest(training.digests[key])}; the run is not at hand`);
  await findings.attempt('base', 'the base', () => checkBase(findings, folder.dir, context));
  const judged = evidence?.decision.subject?.base?.replace(/^sha256:/, '');
  if (judged !== undefined && origin?.base.digest && judged !== origin.base.digest)
    findings.add(
      'failed',
      'gate',
      'the gate',
      `compared it with base ${shortDigest(judged)}, it is for ${shortDigest(origin.base.digest)}`,
    );
  return findings.list;
}
