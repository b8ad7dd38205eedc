// Verdicts as CI systems read them: JUnit XML and SARIF 2.1.0. Neither repeats judged text or the judge's reasoning,
// which may quote it.
import { sha256 } from '../base/digest.js';
import { writeFileAtomic } from '../base/files.js';
import type { VerdictRow } from './agreement.js';
import { channelLabel } from './contract.js';

/** GitHub refuses more results in one run. */
const MAX_SARIF_RESULTS = 25_000;

/** XML 1.0 text: markup escaped, characters that XML cannot hold replaced. */
const xml = (text: string): string =>
  text
    .replaceAll(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '\ufffd')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll('\n', '&#10;');

/** One test case per verdict: blocked is a failure, unjudged an error. Only an allow is a pass. */
export function junitXml(input: string, verdicts: readonly VerdictRow[]): string {
  const suites = [...new Set(verdicts.map((v) => v.policy))].map((policy) => {
    const own = verdicts.filter((v) => v.policy === policy);
    const cases = own.map((v) => {
      const open =
        `    <testcase classname="${xml(policy || 'no policy')}" ` +
        `name="${xml(`${v.id} ${channelLabel(v.channel)}`)}" file="${xml(input)}" ` +
        `line="${v.line}" time="${(v.latencyMs / 1000).toFixed(3)}"`;
      if (v.outcome === 'allow') return `${open}/>`;
      const body =
        v.outcome === 'block'
          ? `<failure type="${xml(v.rule ?? 'block')}" message="${xml(`breaks rule ${v.rule ?? '?'} of ${policy}`)}"/>`
          : `<error type="${v.cause ?? 'unjudged'}" message="${xml(`not judged: ${v.cause ?? 'unknown'}`)}"/>`;
      return `${open}>${body}</testcase>`;
    });
    const count = (outcome: string): number => own.filter((v) => v.outcome === outcome).length;
    return (
      `  <testsuite name="${xml(`screen ${policy || 'no policy'}`)}" tests="${own.length}" ` +
      `failures="${count('block')}" errors="${own.length - count('block') - count('allow')}" ` +
      `skipped="0">\n${cases.join('\n')}\n  </testsuite>`
    );
  });
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n${suites.join('\n')}\n</testsuites>\n`;
}

/** One result per verdict that is not an allow; the most severe first, as readers cut long lists. */
export function sarif(input: string, verdicts: readonly VerdictRow[], version: string): Record<string, unknown> {
  const failing = verdicts
    .filter((v) => v.outcome !== 'allow')
    .sort((a, b) => Number(a.outcome !== 'block') - Number(b.outcome !== 'block'))
    .slice(0, MAX_SARIF_RESULTS);
  const ruleId = (v: VerdictRow): string =>
    v.outcome === 'block' ? `${v.policy}/${v.rule ?? 'block'}` : `unjudged/${v.cause ?? 'unknown'}`;
  const rules = [...new Set(failing.map(ruleId))];
  return {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {
          driver: {
            name: 'temper screen',
            version,
            rules: rules.map((id) => ({
              id,
              shortDescription: { text: id.startsWith('unjudged/') ? `no verdict: ${id.slice(9)}` : `rule ${id}` },
            })),
          },
        },
        results: failing.map((v) => ({
          ruleId: ruleId(v),
          ruleIndex: rules.indexOf(ruleId(v)),
          level: v.outcome === 'block' ? 'error' : 'warning',
          message: {
            text:
              v.outcome === 'block'
                ? `Row ${v.id}, channel ${channelLabel(v.channel)}: breaks rule ${v.rule ?? '?'} of policy ${v.policy}.`
                : `Row ${v.id}, channel ${channelLabel(v.channel)}: not judged (${v.cause ?? 'unknown'}).`,
          },
          locations: [
            {
              physicalLocation: {
                artifactLocation: { uri: encodeURI(input.replaceAll('\\', '/')) },
                region: { startLine: v.line },
              },
            },
          ],
          partialFingerprints: {
            'temperVerdict/v1': sha256(JSON.stringify([v.id, v.channel, ruleId(v), v.digests.policy])),
          },
        })),
      },
    ],
  };
}

export const writeJunit = (file: string, input: string, verdicts: readonly VerdictRow[]): void =>
  writeFileAtomic(file, junitXml(input, verdicts));
export const writeSarif = (file: string, input: string, verdicts: readonly VerdictRow[], version: string): void =>
  writeFileAtomic(file, `${JSON.stringify(sarif(input, verdicts, version), null, 1)}\n`);
