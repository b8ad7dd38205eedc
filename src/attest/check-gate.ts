// The evidence of a gate: that its parts are of each other, that it was about this model, and that the decision follows
// from it.
import { shortDigest } from '../runs/named-digest.js';
import { judgesMerged, labelsText } from '../runs/standing.js';
import { firstDifference } from '../verdict-log/canonical.js';
import { DECISION_FILE, type Evidence } from './evidence.js';
import { type Finding, Findings } from './findings.js';
import type { Origin } from './origin.js';
import { checkProbe, type ProbeFacts } from './probe.js';

/**
 * Decides anew from outcomes, suite and lock.
 * @param gate the folder of the evidence
 * @returns what decision.json must say, as far as it follows from them
 * @throws {TemperError} the evidence is not whole, or not of each other
 */
export type Redecide = (gate: string, signal?: AbortSignal) => Promise<Readonly<Record<string, unknown>>>;

export interface GateContext {
  readonly evidence: Evidence | null;
  readonly origin: Origin | null;
  readonly adapter: string | null;
  /** Of a merged checkpoint in the folder, "sha256:…"; null: it holds none. */
  readonly checkpoint: string | null;
  readonly redecide: Redecide | null;
  /** null: there was none. */
  readonly probe: ProbeFacts | null;
  /** Concludes again from the files of a probe; null: nothing does. */
  readonly reprobe?: ((folder: string, signal?: AbortSignal) => unknown) | null | undefined;
  /** There is an override, and it holds. */
  readonly overridden: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** What temper.json says of the gate, against what is there. */
async function checkRecord(findings: Findings, { evidence, origin, overridden }: GateContext): Promise<void> {
  const said = origin?.record?.gate;
  if (!said) return;
  const what = `temper.json: gate ${said.status}`;
  if (said.status === 'off') findings.add('missing', 'record', what, 'the recipe says that it has no gate');
  if (said.status === 'none')
    findings.add('missing', 'record', what, 'a whole model, which no gate compares with a base');
  if (said.status === 'off' || said.status === 'none') return;
  const wrong: string[] = [];
  if (said.status === 'passed' && evidence?.decision.decision !== 'PASS') wrong.push('no PASS is there');
  if (said.status === 'overridden' && !overridden) wrong.push('no override is there that holds');
  const has: Readonly<Record<string, string | null | undefined>> = {
    decision: evidence?.folder.has(DECISION_FILE) ? await evidence.folder.sha256(DECISION_FILE) : null,
    outcomes: evidence?.outcomes?.sha256,
    lock: evidence?.lock?.digest,
    suite: evidence?.decision.suite,
  };
  for (const key of ['decision', 'outcomes', 'lock', 'suite'] as const) {
    const wanted = said[key];
    if (wanted !== undefined && `sha256:${(has[key] ?? '').replace(/^sha256:/, '')}` !== wanted)
      wrong.push(`its ${key} is ${has[key] ? shortDigest(has[key]) : 'not here'}, wanted ${shortDigest(wanted)}`);
  }
  const judged = evidence?.decision.subject;
  for (const key of ['adapter', 'base', 'tokenizer', 'chatFormat', 'mergeRecipe'] as const) {
    const merged = key === 'mergeRecipe' && said.subject && judged?.merged?.recipe === said.subject.mergeRecipe;
    if (evidence && said.subject && !merged && (judged?.[key] ?? null) !== said.subject[key])
      wrong.push(`it was about another ${key}`);
  }
  if (wrong.length > 0) findings.add('failed', 'record', what, wrong.join('; '));
  else findings.add('ok', 'record', what, 'as its evidence');
}

export async function checkGate(context: GateContext): Promise<readonly Finding[]> {
  const { evidence, origin, adapter, checkpoint, redecide, signal } = context;
  const findings = new Findings('gate');
  await checkRecord(findings, context);
  if (!evidence) {
    findings.add(
      'missing',
      'decision',
      'the release gate',
      'no gate compared it with its base: there is no gate/decision.json',
    );
    return findings.list;
  }
  const { decision, lock, outcomes, folder } = evidence;
  const is = (
    id: string,
    what: string,
    got: string | null | undefined,
    wanted: string | null | undefined,
    about: string,
  ): void => {
    if (!got) findings.add('missing', id, what, 'it is not there');
    else if (!wanted) findings.add('unchecked', id, what, `decision.json names none`);
    else if (`sha256:${got.replace(/^sha256:/, '')}` === wanted)
      findings.add('ok', id, what, `${about}, ${shortDigest(got)}`);
    else findings.add('failed', id, what, `is ${shortDigest(got)}, the decision is about ${shortDigest(wanted)}`);
  };
  is(
    'outcomes',
    `outcomes.jsonl${outcomes ? `, ${outcomes.rows} rows` : ''}`,
    outcomes?.sha256,
    decision.outcomes,
    'those that were decided on',
  );
  is('lock', 'gate.lock.json', lock?.digest, decision.lock, 'the lock that it was decided under');
  const { subject, labelled } = decision;
  if (labelled) findings.add('unchecked', 'labels', 'labels.jsonl', labelsText(labelled));
  if (!subject) findings.add('failed', 'subject', 'what was judged', 'decision.json names no adapter');
  else if (checkpoint !== null && subject.merged)
    is('subject', 'the merged checkpoint that was judged', checkpoint, subject.merged.checkpoint, 'this one');
  else if (adapter === null)
    findings.add(
      'unchecked',
      'subject',
      'what was judged',
      `adapter ${shortDigest(subject.adapter ?? '')}; here is no adapter to hold it against`,
    );
  else is('subject', 'the adapter that was judged', adapter, subject.adapter, 'this one');
  const base = origin?.base.digest;
  if (subject && base) is('base', 'the base it was compared with', base, subject.base, 'the one it is for');
  if (!redecide) findings.add('unchecked', 'recomputed', `decision ${decision.decision}`, 'nothing here decides again');
  else {
    const made = await findings.attempt('recomputed', `decision ${decision.decision}`, () =>
      redecide(folder.dir, signal),
    );
    const arms = made && subject && judgesMerged(made) !== Boolean(subject.merged) ? 'arms' : null;
    const differs = made && (firstDifference(made, decision) ?? arms);
    if (differs)
      findings.add(
        'failed',
        'recomputed',
        `decision ${decision.decision}`,
        `its ${differs} is not what outcomes, suite and lock give`,
      );
    else if (made)
      findings.add(
        'ok',
        'recomputed',
        `decision ${decision.decision}`,
        'what outcomes, suite and lock give, decided again',
      );
  }
  const { probe: facts, reprobe = null } = context;
  await checkProbe(findings, { evidence, facts, adapter, reprobe, signal });
  return findings.list;
}
