// `temper gate decide`: decides again, of a file of outcomes or of a gate's folder, with what people say of its pairs.
// In a folder decision, labels and reports are written anew, so that it stands with them; labels that are not of its
// outcomes change nothing there.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { versions } from '../base/machine.js';
import { type DecidingOptions, decideOnFiles } from '../gate/deciding.js';
import { type Decision, decisionText, readDecision } from '../gate/decision.js';
import { nextSteps } from '../gate/next.js';
import { bytesOf } from '../gate/outcomes.js';
import { DECISION_FILE, OUTCOMES_FILE } from '../gate/record.js';
import { isGateFolder } from '../gate/report/index.js';
import { loadSuite } from '../gate/suite.js';
import { reportGate } from './gate-report.js';
import { type Asked, type AskRequest, askPeople, labelsOfPeople } from './gate-review.js';
import { LABELS_FILE, LOCK_FILE, requireDecidedOn, SUITE_FILE } from './gate-tools.js';

export interface DecideAgain {
  /** outcomes.jsonl, or the folder of a gate. */
  readonly outcomes: string;
  /** Absent: the folder's own. */
  readonly suite?: string | undefined;
  readonly lock?: string | undefined;
  readonly labels?: string | undefined;
  /** The store whose reviewers' labels count. */
  readonly store?: string | undefined;
  /** Put pairs that differ into the store before. */
  readonly ask?: boolean | undefined;
  readonly twoPersons?: boolean | undefined;
  readonly discordant?: string | undefined;
}
export interface DecidedAgain {
  readonly decision: Decision;
  readonly discordant: number;
  readonly asked: Asked | null;
  /** Pairs that differ of which people have not said all yet; null: nobody was asked. */
  readonly waiting: number | null;
  /** What to do about what did not pass, a line for each metric. */
  readonly next: readonly string[];
}

/**
 * @throws {ConfigError} bad_option, gate_what
 * @throws as requireDecidedOn, decideOnFiles, askPeople, labelsOfPeople, reportGate
 */
export async function decideAgain(request: DecideAgain, options: DecidingOptions = {}): Promise<DecidedAgain> {
  const { outcomes: given, store, ask, twoPersons, discordant } = request;
  const { signal } = options;
  if (store !== undefined && request.labels !== undefined)
    throw new ConfigError('bad_option', 'gate decide: --labels and --store: labels are of one or of the other');
  if (ask && store === undefined) throw new ConfigError('bad_option', 'gate decide: --ask without --store');
  const folder = isGateFolder(given) ? given : null;
  if (folder !== null && (request.suite !== undefined || request.lock !== undefined))
    throw new ConfigError('bad_option', `gate decide: ${given} has its own suite and lock; give its outcomes.jsonl`);
  if (folder !== null) await requireDecidedOn(folder, signal);
  const own = (name: string): string | undefined => (folder === null ? undefined : join(folder, name));
  const outcomes = own(OUTCOMES_FILE) ?? given;
  const suite = request.suite ?? own(SUITE_FILE);
  if (suite === undefined)
    throw new ConfigError('bad_option', 'gate decide: --suite FILE is wanted, or the folder of a gate');
  const lock = request.lock ?? own(LOCK_FILE);
  const before = own(LABELS_FILE);
  const asking: AskRequest | null = store === undefined ? null : { outcomes, suite, store, twoPersons };
  const asked = asking && ask ? await askPeople(asking, signal) : null;
  const said = asking ? await labelsOfPeople(asking, signal) : null;
  const subject = folder === null ? null : readDecision(join(folder, DECISION_FILE)).subject;
  const kept = mkdtempSync(join(tmpdir(), 'temper-labels-'));
  try {
    const written = join(kept, LABELS_FILE);
    if (said) writeFileAtomic(written, said.labels.map((l) => `${JSON.stringify(l)}\n`).join(''));
    const labels = said
      ? written
      : (request.labels ?? (before !== undefined && existsSync(before) ? before : undefined));
    const files = { outcomes, suite, lock, labels, discordant, subject, version: versions().temper };
    const { decision, discordant: pairs } = await decideOnFiles(files, options);
    if (folder !== null && decision.exit !== 40) {
      if (labels !== undefined) writeFileAtomic(join(folder, LABELS_FILE), bytesOf(labels));
      writeFileAtomic(join(folder, DECISION_FILE), decisionText(decision));
      await reportGate({ folder }, signal);
    }
    const next = nextSteps(decision, loadSuite(suite).suite);
    return { decision, discordant: pairs, asked, waiting: said?.waiting ?? null, next };
  } finally {
    rmSync(kept, { recursive: true, force: true });
  }
}
