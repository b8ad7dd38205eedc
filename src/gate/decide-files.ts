// Reads what a decision hangs on and makes it.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { writeFileAtomic } from '../base/files.js';
import { type DecideOptions, decide, discordantPairs } from './decide.js';
import type { Decided, DecideRequest } from './deciding.js';
import { readLock, readSuiteFiles } from './lock.js';
import { readLabels, readOutcomes } from './outcomes.js';
import { filesOf, loadSuite } from './suite.js';

/**
 * Files of the suite are read where one of them is there; where none is, a lock's word counts for them.
 * @throws as loadSuite, readLock, readLabels, readOutcomes, readSuiteFiles and decide
 */
export function decideFiles(request: DecideRequest, options: DecideOptions): Decided {
  const suite = loadSuite(request.suite);
  const lock = request.lock === undefined ? null : readLock(request.lock);
  const named = filesOf(suite.suite);
  const atHand = named.some(({ path }) => existsSync(resolve(suite.folder, path)));
  const files = atHand || named.length === 0 ? readSuiteFiles(suite) : null;
  const labels = request.labels === undefined ? null : readLabels(request.labels);
  const outcomes = readOutcomes(request.outcomes);
  const { version, subject = null } = request;
  const decision = decide({ outcomes, suite, lock, files, labels, subject, version, file: request.outcomes }, options);
  if (request.discordant === undefined) return { decision, discordant: 0 };
  const judged = suite.suite.tests.flatMap((t) => t.metrics.filter((m) => m.judged).map((m) => m.name));
  const done = new Set(labels?.rows.map((l) => JSON.stringify([l.metric, l.slice ?? null, l.prompt, l.sample])));
  const pairs = discordantPairs(outcomes, new Set(judged)).filter(
    (p) => !done.has(JSON.stringify([p.metric, p.slice, p.prompt, p.sample])),
  );
  writeFileAtomic(request.discordant, pairs.map((p) => `${JSON.stringify({ ...p, by: '' })}\n`).join(''));
  return { decision, discordant: pairs.length };
}
