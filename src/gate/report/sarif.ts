// SARIF 2.1.0: a result for each finding, and for each prompt behind it on which the arm is worse, at its row of the
// outcomes. No text of prompts or answers is in it. GitHub shows 5,000 results of a run: the gravest come first.
import { sha256 } from '../../base/digest.js';
import { SARIF_HEAD, sarifUri } from '../../report/sarif.js';
import type { Entry, Overview, Pair } from './overview.js';
import { figure, nameOf, sentenceOf, wholeOf } from './words.js';

const MOST = 5000;
const OUTCOMES = 'outcomes.jsonl';

const levelOf = ({ of: m }: Entry): 'error' | 'warning' => (m.verdict === 'FAIL' ? 'error' : 'warning');
/** @param folder of the gate, as results name it */
export function sarifOf({ decision, suite, findings }: Overview, version: string, folder = ''): string {
  const rules = [...new Set(findings.map((e) => e.of.metric))];
  const at = (line: number): object => ({
    physicalLocation: {
      artifactLocation: { uri: sarifUri(folder === '' ? OUTCOMES : `${folder}/${OUTCOMES}`) },
      region: { startLine: line },
    },
  });
  const result = (entry: Entry, text: string, line: number, of: readonly unknown[]): object => ({
    ruleId: entry.of.metric,
    ruleIndex: rules.indexOf(entry.of.metric),
    level: levelOf(entry),
    message: { text },
    locations: [at(line)],
    partialFingerprints: {
      'temperGate/v1': sha256(JSON.stringify([wholeOf(entry.of), entry.of.slice, ...of, decision.suite])),
    },
  });
  const whole = findings.map((e) =>
    result(e, `${nameOf(e.of)}: ${[...e.of.reasons, sentenceOf(e)].join('; ')}.`, e.worse[0]?.line ?? 1, []),
  );
  const ofPair = (e: Entry, p: Pair): object =>
    result(
      e,
      `${nameOf(e.of)}: prompt ${p.prompt}${p.sample > 0 ? `, sample ${p.sample}` : ''}: ` +
        `base ${figure(p.base, e.of)}, ${p.arm} ${figure(p.adapter, e.of)}.`,
      p.line,
      [p.prompt, p.sample],
    );
  const results = [...whole, ...findings.flatMap((e) => e.worse.map((p) => ofPair(e, p)))].slice(0, MOST);
  const driver = {
    name: 'temper gate',
    version,
    rules: rules.map((id) => {
      const about = findings.find((e) => e.of.metric === id)?.test?.about;
      return { id, shortDescription: { text: about ?? `metric ${id}` } };
    }),
  };
  const properties = { decision: decision.decision, suite: `${suite.name} ${suite.version}` };
  return (
    `${SARIF_HEAD}${results.map((r) => `\n${JSON.stringify(r)}`).join(',')}\n],` +
    `"tool":${JSON.stringify({ driver })},"automationDetails":{"id":"temper-gate/"},` +
    `"properties":${JSON.stringify(properties)}}]}\n`
  );
}
