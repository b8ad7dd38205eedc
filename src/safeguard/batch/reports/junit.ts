// JUnit XML: a suite for each policy, a case for each verdict. Blocked is a failure, unjudged an error; only an allow
// is a pass.
import { OutputFile } from '../../../base/files.js';
import { xml } from '../../../report/xml.js';
import type { VerdictRow } from '../../agreement.js';
import { channelOf, fileOf, type ReportSource, shortId, verdictsOf } from './source.js';

function testCase(v: VerdictRow, source: ReportSource): string {
  const name = [shortId(v), channelOf(v)].filter((part) => part !== '').join(' ');
  const open =
    `    <testcase classname="${xml(v.policy || 'no policy')}" name="${xml(name)}" ` +
    `file="${xml(fileOf(v, source))}" line="${v.line}" time="${(v.latencyMs / 1000).toFixed(3)}"`;
  if (v.outcome === 'allow') return `${open}/>\n`;
  const body =
    v.outcome === 'block'
      ? `<failure type="${xml(v.rule ?? 'block')}" message="${xml(`breaks rule ${v.rule ?? '?'} of ${v.policy}`)}"/>`
      : `<error type="${v.cause ?? 'unjudged'}" message="${xml(`not judged: ${v.cause ?? 'unknown'}`)}"/>`;
  return `${open}>${body}</testcase>\n`;
}

interface Counts {
  tests: number;
  failures: number;
  errors: number;
  ms: number;
}
const attributes = ({ tests, failures, errors, ms }: Counts): string =>
  `tests="${tests}" failures="${failures}" errors="${errors}" time="${(ms / 1000).toFixed(3)}"`;

/** One reading for the counts, one for each policy. @throws {ConfigError} output_unwritable · {CheckpointError} */
export async function writeJunit(out: string, source: ReportSource): Promise<void> {
  const suites = new Map<string, Counts>();
  const all: Counts = { tests: 0, failures: 0, errors: 0, ms: 0 };
  for await (const batch of verdictsOf(source))
    for (const v of batch) {
      const own = suites.get(v.policy) ?? { tests: 0, failures: 0, errors: 0, ms: 0 };
      suites.set(v.policy, own);
      for (const count of [own, all]) {
        count.tests++;
        count.ms += v.latencyMs;
        if (v.outcome === 'block') count.failures++;
        else if (v.outcome !== 'allow') count.errors++;
      }
    }
  const file = await OutputFile.open(out, source.signal);
  try {
    await file.write(`<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="temper screen" ${attributes(all)}>\n`);
    for (const [policy, counts] of suites) {
      await file.write(
        `  <testsuite name="${xml(`screen ${policy || 'no policy'}`)}" ${attributes(counts)} skipped="0">\n`,
      );
      for await (const batch of verdictsOf(source)) {
        const cases = batch.filter((v) => v.policy === policy).map((v) => testCase(v, source));
        if (cases.length > 0) await file.write(cases.join(''));
      }
      await file.write('  </testsuite>\n');
    }
    await file.write('</testsuites>\n');
    file.commit();
  } finally {
    file.discard();
  }
}
