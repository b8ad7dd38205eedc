// Detectors beside the judge: they can block, they can never allow, and every verdict says which of them looked.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { VerdictRow } from '../../src/safeguard/agreement.js';
import { screenFile } from '../../src/safeguard/batch/screen-file.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { createDetectors } from '../../src/safeguard/detectors/index.js';
import { detectorFlags, readDetectors } from '../../src/safeguard/detectors/options.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { HeldResponse } from '../../src/safeguard/release.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge } from '../../src/safeguard/types.js';
import { github } from './detector-samples.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-detected-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const policy = definePolicy('p', 'R1: rude');
const saying = (rule: string | null | undefined): Judge => ({
  name: 'j',
  digest: 'd',
  judge: async ({ nonce }) => ({ text: rule === undefined ? 'hm' : renderVerdict({ rule, nonce }), finish: 'stop' }),
});
const token = github();
const detectors = createDetectors();
const screenOf = (rule: string | null | undefined, set = detectors): ReturnType<typeof createScreen> =>
  createScreen({ policies: [policy], judge: saying(rule), detectors: set });

describe('beside the judge', () => {
  it('a find blocks what the judge allows, and the notice tells the rule alone', async () => {
    const held = new HeldResponse(screenOf(null));
    for (const char of `the key is ${token}`) held.push('analysis', char);
    held.push('final', 'hello');
    const { channels, result } = await held.release();
    expect(result.outcome).toBe('block');
    expect(result.channels).toEqual({ analysis: 'block', final: 'allow' });
    expect(channels[0]).toEqual({
      channel: 'analysis',
      withheld: true,
      text: '[analysis withheld: policy detector/secrets, rule github-token]',
    });
    const block = result.verdicts.find((v) => v.policy === 'detector/secrets');
    expect(block).toMatchObject({
      outcome: 'block',
      channel: 'analysis',
      rule: 'github-token',
      findings: [{ rule: 'github-token', view: 'raw', from: 11, to: 51 }],
      digests: { detectors: detectors.digest },
    });
    expect(JSON.stringify(result.verdicts)).not.toContain(token);
  });
  it.each<[string, string | null | undefined, string]>([
    ['an allow stays one', null, 'allow'],
    ['a block stays one', 'R1', 'block'],
    ['what is off the contract stays unjudged', undefined, 'unjudged'],
  ])('nothing found: %s', async (_, rule, outcome) => {
    const { verdicts, outcome: all } = await screenOf(rule).screen({ final: 'hello' });
    expect(all).toBe(outcome);
    expect(verdicts).toHaveLength(1);
    expect(verdicts[0]?.detectors).toEqual({
      secrets: 'clear',
      personal: 'clear',
      control: 'clear',
      invisible: 'clear',
      repetition: 'clear',
      canary: 'off',
    });
  });
  it('without a policy, or a judge, nothing passes whatever they say', async () => {
    const none = createScreen({ policies: [], judge: saying(null), detectors });
    expect((await none.screen({ final: 'hello' })).outcome).toBe('unjudged');
    expect((await none.screen({ final: token })).outcome).toBe('block');
    const alone = createScreen({ policies: [policy], judge: null, detectors });
    expect((await alone.screen({ final: 'hello' })).outcome).toBe('unjudged');
  });
  it('what is off is said in the verdict and is part of its digest', async () => {
    const off = createDetectors({ choices: { secrets: false } });
    const { verdicts, outcome } = await screenOf(null, off).screen({ final: token });
    expect(outcome).toBe('allow');
    expect(verdicts[0]?.detectors?.secrets).toBe('off');
    expect(verdicts[0]?.digests.detectors).not.toBe(detectors.digest);
  });
  it('detectors that fail, or are stopped, let nothing pass', async () => {
    const broken = { ...detectors, look: () => Promise.reject(new Error('no')) };
    const failed = await screenOf(null, broken).screen({ final: 'hello' });
    expect(failed.verdicts).toMatchObject([{ outcome: 'unjudged', cause: 'judge_error' }]);
    expect((await screenOf('R1', broken).screen({ final: 'hello' })).outcome).toBe('block');
  });
});

describe('in a file', () => {
  it('a detector has rows of its own, counts as no judge, and looks again where verdicts are kept', async () => {
    const input = join(dir, 'in.jsonl'),
      output = join(dir, 'out.jsonl');
    writeFileSync(
      input,
      `${JSON.stringify({ text: 'hello', expect: null })}\n${JSON.stringify({ text: token, expect: null })}\n` +
        `${JSON.stringify({ text: `${token} `, policy: 'detector/secrets', expect: 'github-token' })}\n`,
    );
    const summary = await screenFile({ input, output, screen: screenOf(null) });
    expect(summary).toMatchObject({ rows: 3, verdicts: 5, allow: 3, block: 2 });
    // Reviewers speak of the policy, and of a detector where they name it.
    expect(summary.agreement?.all).toMatchObject({
      trueNegatives: 2,
      falsePositives: 0,
      truePositives: 1,
      sameRule: 1,
    });
    const text = readFileSync(output, 'utf8');
    writeFileSync(`${output}.part`, text);
    const off = createDetectors({ choices: { secrets: false } });
    const again = await screenFile({ input, output, screen: screenOf(undefined, off) });
    expect(again).toMatchObject({ kept: 3, allow: 3, block: 0 });
    const [first] = readFileSync(output, 'utf8').split('\n');
    expect((JSON.parse(first ?? '') as VerdictRow).detectors?.secrets).toBe('off');
  });
});

describe('asked for', () => {
  it('on the command line: the last word counts', () => {
    expect(detectorFlags(['personal', 'secrets=off'])).toMatchObject({ choices: { personal: true, secrets: false } });
    expect(detectorFlags(['personal=card,iban']).choices?.personal).toEqual(['card', 'iban']);
    expect(createDetectors(detectorFlags(['off', 'control'])).on).toEqual(['control']);
    const file = join(dir, 'canaries.txt');
    writeFileSync(file, 'The marmot counts 4711 blue lanterns.\n\n');
    expect(createDetectors(detectorFlags([`canary=${file}`])).on).toContain('canary');
  });
  it('as YAML', () => {
    const file = join(dir, 'd.yaml');
    writeFileSync(
      file,
      'detectors:\n  secrets: off\n  personal: [all, -email]\n  invisible: all\n  canary: canaries.txt\n',
    );
    const options = detectorFlags(['invisible=off'], readDetectors(file));
    expect(options.choices).toMatchObject({ secrets: false, personal: ['all', '-email'], invisible: false });
    expect(options.canaries).toHaveLength(1);
  });
  it.each(['nothing', 'secrets=nothing', 'canary', 'canary=/no/such/file', 'personal='])(
    '--detector %s is refused',
    (flag) =>
      expect(() => createDetectors(detectorFlags([flag]))).toThrow(expect.objectContaining({ code: 'bad_option' })),
  );
  it.each([
    'secrets: off\n',
    'detectors: {secret: off}\n',
    'detectors: {secrets: 3}\n',
    'detectors: *a\n',
    '{',
    '- a\n',
  ])('a file with %j is refused', (text) => {
    const file = join(dir, 'bad.yaml');
    writeFileSync(file, text);
    expect(() => readDetectors(file)).toThrow(expect.objectContaining({ code: 'bad_option' }));
  });
});
