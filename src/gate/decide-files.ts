// Reads what a decision hangs on and makes it.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { writeFileAtomic } from '../base/files.js';
import { cellsOf, digestsOf, pairKey } from './cells.js';
import { type DecideOptions, decide, discordantPairs } from './decide.js';
import type { AskedPair, Decided, DecideRequest, PairsRequest } from './deciding.js';
import { readLock, readSuiteFiles } from './lock.js';
import { bytesOf, type Outcomes, parseOutcomes, readLabels } from './outcomes.js';
import { filesOf, type LoadedSuite, loadSuite } from './suite.js';

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
  const bytes = bytesOf(request.outcomes);
  const outcomes = parseOutcomes(bytes, request.outcomes);
  const bound = labels?.rows.filter((l) => l.of !== undefined) ?? [];
  const cells = bound.length === 0 ? null : cellsOf(bytes, request.outcomes, new Set(bound.map(pairKey)));
  const { version, subject = null } = request;
  const decision = decide(
    { outcomes, suite, lock, files, labels, cells, subject, version, file: request.outcomes },
    options,
  );
  if (request.discordant === undefined) return { decision, discordant: 0 };
  const done = new Set(labels?.rows.map(pairKey));
  const pairs = pairsOf(bytes, outcomes, suite, request.outcomes).filter(({ pair }) => !done.has(pairKey(pair)));
  const lines = pairs.map(({ pair, cells }) => `${JSON.stringify({ ...pair, of: digestsOf(cells), by: '' })}\n`);
  writeFileAtomic(request.discordant, lines.join(''));
  return { decision, discordant: pairs.length };
}
function pairsOf(bytes: Uint8Array, outcomes: Outcomes, { suite }: LoadedSuite, file: string): readonly AskedPair[] {
  const judged = suite.tests.flatMap((t) => t.metrics.filter((m) => m.judged));
  const pairs = discordantPairs(outcomes, new Set(judged.map((m) => m.name)));
  const cells = cellsOf(bytes, file, new Set(pairs.map(pairKey)));
  return pairs.flatMap((pair) => {
    const metric = judged.find((m) => m.name === pair.metric);
    return metric ? [{ pair, cells: cells.get(pairKey(pair)) ?? {}, metric }] : [];
  });
}
/** Judged pairs that differ, with what was asked and said. @throws as loadSuite and readOutcomes */
export function discordantOf({ outcomes: file, suite }: PairsRequest): readonly AskedPair[] {
  const bytes = bytesOf(file);
  return pairsOf(bytes, parseOutcomes(bytes, file), loadSuite(suite), file);
}
