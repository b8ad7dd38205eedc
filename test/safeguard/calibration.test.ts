// Front matter that Temper reads, and thresholds of judges: what a score decides, and for whom.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  type Calibration,
  calibrationFor,
  held,
  readCalibrations,
  writeCalibration,
} from '../../src/safeguard/calibration.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { frontMatter } from '../../src/safeguard/front-matter.js';
import { calibrationPath, definePolicy, loadPolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge, Verdict } from '../../src/safeguard/types.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-calibration-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe('front matter', () => {
  it('is read, and its lines are known', () => {
    const text = '---\ntitle: a\nbuffer: whole\nchannels: [final, analysis]\nthresholds: {recall: 0.9}\n---\nR1: x\n';
    expect(definePolicy('p', text)).toMatchObject({
      text: 'R1: x\n',
      buffer: 'whole',
      channels: ['final', 'analysis'],
      thresholds: { recall: 0.9 },
    });
    const found = frontMatter(text);
    expect([...found.lines]).toEqual([
      ['title', 2],
      ['buffer', 3],
      ['channels', 4],
      ['thresholds', 5],
    ]);
    expect(found.before).toBe(6);
  });
  it.each([
    ['no YAML', '---\nbuffer: whole\ntitle: a: b\n---\nR1: x'],
    ['a field twice', '---\ncontract: label\ncontract: temper\n---\nR1: x'],
    ['an alias of nothing', '---\ncontract: *a\n---\nR1: x'],
    ['aliases of aliases', `---\na: &a [1]\nb: [${'*a,'.repeat(20)}]\ncontract: label\n---\nR1: x`],
    ['no end', '---\nonBlock: review\n\nR1: x'],
    ['not at the very beginning', '\n---\nbuffer: whole\n---\nR1: x'],
  ])('a field of ours that would not be read is refused: %s', (_, text) =>
    expect(() => definePolicy('p', text)).toThrow(expect.objectContaining({ code: 'policy_front_matter' })),
  );
  it('passes over what is not ours, and refuses ours with another value', () => {
    expect(definePolicy('p', '---\nseverity: 3\n---\nR1: x')).not.toHaveProperty('buffer');
    for (const bad of [
      'buffer: hole',
      'channels: [mail]',
      'channels: []',
      'thresholds: {recal: 1}',
      'thresholds: {f1: 2}',
    ])
      expect(() => definePolicy('p', `---\n${bad}\n---\nR1: x`), bad).toThrow(
        expect.objectContaining({ code: 'policy_front_matter', exitCode: 2 }),
      );
  });
});

const none = { rows: 2, violating: 1, unjudged: 0, scored: 2, precision: null, recall: null, f1: null };
const figures = { ...none, falsePositives: null, recallAtFpr: null, ece: null };
const entry = (policy: { name: string; digest: string }, judge: string, threshold: number): Calibration => ({
  policy: { name: policy.name, digest: policy.digest },
  judge: { name: 'j', digest: judge },
  contract: 'temper',
  effort: null,
  golden: { digest: 'a'.repeat(64), rows: 2 },
  fpr: 0.01,
  threshold: { value: threshold, low: threshold - 1, high: threshold + 1 },
  chosenBy: 'f1',
  decidedBy: 'threshold',
  bootstrap: { resamples: 10, seed: 1 },
  overall: figures,
  channels: { final: figures },
});
const scripted = (rule: string | null, score?: number): Judge => ({
  name: 'j',
  digest: 'judge',
  judge: async ({ nonce }) => ({
    text: renderVerdict({ rule, nonce }),
    finish: 'stop',
    ...(score === undefined ? {} : { score }),
  }),
});

describe('thresholds', () => {
  const file = join(dir, 'policy.md');
  writeFileSync(file, 'R1: x\n');
  const verdict = async (judge: Judge): Promise<Verdict | undefined> =>
    (await createScreen({ policies: [await loadPolicy(file)], judge }).screen({ final: 'text' })).verdicts[0];

  it('a file holds an entry for each policy, judge and effort; a new one takes the place of the old', async () => {
    const policy = await loadPolicy(file);
    const path = join(dir, 'some.json');
    expect(readCalibrations(path)).toEqual([]);
    for (const [judge, threshold] of [
      ['a', 1],
      ['b', 2],
      ['a', 3],
    ] as const)
      writeCalibration(path, entry(policy, judge, threshold));
    expect(readCalibrations(path).map((c) => [c.judge.digest, c.threshold?.value])).toEqual([
      ['b', 2],
      ['a', 3],
    ]);
  });
  it.each([
    '{',
    '[]',
    '{"schema":"temper.calibration/2","entries":[]}',
    '{"schema":"temper.calibration/1","entries":[{}]}',
  ])('a file that is none is refused: %s', (text) => {
    writeFileSync(join(dir, 'bad.json'), text);
    expect(() => readCalibrations(join(dir, 'bad.json'))).toThrow(
      expect.objectContaining({ code: 'calibration_invalid' }),
    );
  });
  it("go over the judge's word in both directions, and no score passes by silence", () => {
    expect(held({ outcome: 'allow', rule: null }, 0.5, 0.4)).toEqual({ outcome: 'block', rule: 'violation' });
    expect(held({ outcome: 'allow', rule: null }, 0.4, 0.4)).toEqual({ outcome: 'block', rule: 'violation' });
    expect(held({ outcome: 'block', rule: 'R1' }, 0.3, 0.4)).toEqual({ outcome: 'allow', rule: null });
    expect(held({ outcome: 'block', rule: 'R1' }, 0.5, 0.4)).toEqual({ outcome: 'block', rule: 'R1' });
    for (const score of [undefined, Number.NaN, -Infinity, Infinity]) {
      expect(held({ outcome: 'allow', rule: null }, score, 0)).toBeNull();
      expect(held({ outcome: 'block', rule: 'R1' }, score, 0)).toEqual({ outcome: 'block', rule: 'R1' });
    }
  });
  it('are read from beside the policy and count for that text and that judge alone', async () => {
    expect(await verdict(scripted(null, -0.5))).toMatchObject({ outcome: 'allow', score: -0.5 });
    const plain = await verdict(scripted(null, -0.5));
    const policy = await loadPolicy(file);
    writeCalibration(calibrationPath(file), entry(policy, 'judge', -1));
    expect(calibrationFor(await loadPolicy(file), 'judge')?.threshold?.value).toBe(-1);
    const strict = await verdict(scripted(null, -0.5));
    expect(strict).toMatchObject({ outcome: 'block', rule: 'violation', score: -0.5, threshold: -1 });
    // Verdicts that were kept before do not pass for those of now.
    expect(strict?.digests.judge).not.toBe(plain?.digests.judge);
    expect(await verdict(scripted(null))).toMatchObject({ outcome: 'unjudged', cause: 'judge_error' });
    expect(await verdict({ ...scripted(null, -0.5), digest: 'another' })).toMatchObject({ outcome: 'allow' });
    writeFileSync(file, 'R1: y\n');
    expect(await loadPolicy(file)).not.toHaveProperty('calibrations');
    expect(await verdict(scripted(null, -0.5))).toMatchObject({ outcome: 'allow' });
  });
});
