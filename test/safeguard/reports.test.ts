import { describe, expect, it } from 'vitest';
import type { VerdictRow } from '../../src/safeguard/agreement.js';
import { junitXml, sarif } from '../../src/safeguard/reports.js';

const row = (v: Partial<VerdictRow>): VerdictRow => ({
  id: 'a',
  line: 1,
  outcome: 'allow',
  policy: 'contact',
  channel: 'final',
  rule: null,
  rationale: 'it says secret',
  cause: null,
  detail: 'secret',
  digests: { policy: 'p', content: 'c', judge: 'j' },
  latencyMs: 12,
  ...v,
});
const verdicts = [
  row({}),
  row({ id: 'b', line: 2, outcome: 'unjudged', cause: 'timeout' }),
  row({ id: '<&">\u0000', line: 3, outcome: 'block', rule: 'C1', channel: 'sec]]>ret' }),
];

describe('reports', () => {
  it('JUnit: allow passes, block fails, unjudged is an error; markup is escaped; no judged text', () => {
    const text = junitXml('in put.jsonl', verdicts);
    expect(text).toContain('<testsuite name="screen contact" tests="3" failures="1" errors="1" skipped="0">');
    expect(text).toContain('<failure type="C1" message="breaks rule C1 of contact"/>');
    expect(text).toContain('<error type="timeout" message="not judged: timeout"/>');
    expect(text).toContain('name="&lt;&amp;&quot;&gt;\ufffd other"');
    expect(text).not.toContain('secret');
  });
  it('SARIF: one result per verdict that is not an allow, blocks first, at their lines', () => {
    const log = sarif('in put.jsonl', verdicts, '1.2.3') as {
      runs: {
        tool: { driver: { rules: { id: string }[] } };
        results: { ruleId: string; level: string; locations: unknown[] }[];
      }[];
    };
    const [run] = log.runs;
    expect(run?.tool.driver.rules.map((r) => r.id)).toEqual(['contact/C1', 'unjudged/timeout']);
    expect(run?.results.map((r) => [r.ruleId, r.level])).toEqual([
      ['contact/C1', 'error'],
      ['unjudged/timeout', 'warning'],
    ]);
    expect(run?.results[0]?.locations).toEqual([
      { physicalLocation: { artifactLocation: { uri: 'in%20put.jsonl' }, region: { startLine: 3 } } },
    ]);
    expect(JSON.stringify(log)).not.toContain('secret');
  });
});
