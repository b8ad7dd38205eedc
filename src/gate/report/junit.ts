// JUnit XML: a suite for each test, a case for each metric and each slice of it that had a say. FAIL is a failure, what
// is open or went wrong an error; only a PASS passes.
import { xml } from '../../report/xml.js';
import { counts } from '../decision.js';
import type { Entry, Overview } from './overview.js';
import { nameOf, sentenceOf, wholeOf } from './words.js';

function testCase(entry: Entry, suite: string): string {
  const { of: m } = entry;
  const open = `    <testcase classname="${xml(`${suite}.${m.test}`)}" name="${xml(nameOf(m))}" time="0"`;
  if (!counts(m)) return `${open}><skipped message="told, without limits"/></testcase>\n`;
  if (m.verdict === 'PASS') return `${open}/>\n`;
  const names = [...new Set(entry.worse.map((p) => p.prompt))].slice(0, 50);
  const text = [
    ...m.reasons,
    sentenceOf(entry),
    ...(entry.next === null ? [] : [`next: ${entry.next}`]),
    ...(names.length > 0 ? [`prompts: ${names.join(', ')}`] : []),
  ];
  const message = xml(text.join('; '));
  return m.verdict === 'FAIL'
    ? `${open}><failure type="FAIL" message="${message}"/></testcase>\n`
    : `${open}><error type="${m.verdict}" message="${message}"/></testcase>\n`;
}
const attributes = (entries: readonly Entry[], seconds = 0): string => {
  const said = entries.filter((e) => counts(e.of));
  const failures = said.filter((e) => e.of.verdict === 'FAIL').length,
    errors = said.filter((e) => e.of.verdict !== 'FAIL' && e.of.verdict !== 'PASS').length;
  return `tests="${entries.length}" failures="${failures}" errors="${errors}" time="${seconds.toFixed(3)}"`;
};
/** Of a suite alone: over all of them schemas know no such attribute. */
const skipped = (entries: readonly Entry[]): string => `skipped="${entries.filter((e) => !counts(e.of)).length}"`;

export function junitOf({ decision, suite, metrics, slices, cost }: Overview): string {
  const entries = metrics.flatMap((e) => [e, ...(slices.get(wholeOf(e.of)) ?? [])]);
  const tests = [...new Set(entries.map((e) => e.of.test))];
  const name = `${suite.name} ${suite.version}`;
  // What was not what was locked is no metric's fault.
  const one = 'tests="1" failures="0" errors="1" time="0"';
  const fault = `<error type="${decision.decision}" message="${xml(decision.reasons.join('; '))}"/>`;
  const broken =
    entries.length === 0
      ? `  <testsuite name="${xml(name)}" ${one} skipped="0">\n` +
        `    <testcase classname="${xml(suite.name)}" name="gate" time="0">${fault}</testcase>\n  </testsuite>\n`
      : '';
  const suites = tests.map((test) => {
    const own = entries.filter((e) => e.of.test === test);
    return `  <testsuite name="${xml(`${name} ${test}`)}" ${attributes(own)} ${skipped(own)}>\n${own
      .map((e) => testCase(e, suite.name))
      .join('')}  </testsuite>\n`;
  });
  const all = broken === '' ? attributes(entries, cost.seconds ?? 0) : one;
  const head = '<?xml version="1.0" encoding="UTF-8"?>\n';
  return `${head}<testsuites name="temper gate" ${all}>\n${broken}${suites.join('')}</testsuites>\n`;
}
