// Votes: how they are asked, how they are counted, and that a leaning of the judge allows nothing.
import { describe, expect, it } from 'vitest';
import { CONTRACT_NAMES } from '../../src/safeguard/contracts/contract.js';
import { CONTRACTS, judgeMessages } from '../../src/safeguard/contracts/index.js';
import { createCheckpointJudge } from '../../src/safeguard/judges/checkpoint.js';
import { verdictScore } from '../../src/safeguard/judges/score.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge, JudgeRequest, Policy } from '../../src/safeguard/types.js';
import { decide, type Vote } from '../../src/safeguard/votes.js';

const vote = (outcome: Vote['outcome'], more: Partial<Vote> = {}): Vote => ({
  outcome,
  rule: outcome === 'block' ? 'R1' : null,
  cause: outcome === 'unjudged' ? 'empty' : null,
  detail: outcome === 'unjudged' ? 'nothing' : '',
  rationale: '',
  ...more,
});
const [A, B, U] = [vote('allow'), vote('block'), vote('unjudged')];

describe('decide', () => {
  const table: readonly (readonly [readonly Vote[], number | undefined, Vote['outcome'], string | null])[] = [
    [[A], undefined, 'allow', null],
    [[B], undefined, 'block', null],
    [[U], undefined, 'unjudged', 'empty'],
    [[A, A, A], undefined, 'allow', null],
    [[A, B, A], undefined, 'block', null],
    [[A, U, A], undefined, 'unjudged', 'disagreement'],
    [[A, U, B], undefined, 'block', null],
    [[U, U, U], undefined, 'unjudged', 'empty'],
    // ln(1.5/2.5) = -0.51, ln(2.5/1.5) = 0.51
    [[A, B, A], 0, 'allow', null],
    [[A, B, A], -1, 'block', null],
    [[B, B, A], 0, 'block', null],
    [[A, U, A], 0, 'unjudged', 'disagreement'],
    [[U, U], 0, 'unjudged', 'empty'],
    // One vote, held to its token's log-odds.
    [[vote('allow', { score: 1 })], 0, 'block', null],
    [[vote('block', { score: -1 })], 0, 'allow', null],
    [[A], 0, 'unjudged', 'judge_error'],
    [[B], 0, 'block', null],
    [[vote('allow', { score: -4 }), vote('allow', { score: 1 })], -1, 'allow', null],
    [[vote('allow', { score: -4 }), vote('allow', { score: 3 })], -1, 'block', null],
  ];
  it.each(table)('%j at %s: %s', (votes, threshold, outcome, cause) =>
    expect(decide(votes, threshold)).toMatchObject({
      outcome,
      cause,
      rule: outcome === 'block' ? expect.any(String) : null,
    }),
  );
  it('an allow that is void stays void, whatever the others say', () => {
    const voided = vote('allow', { allowVoid: { cause: 'wrong_model', detail: 'x' } });
    expect(decide([A, voided])).toMatchObject({ outcome: 'unjudged', cause: 'wrong_model' });
    expect(decide([vote('block', { score: -9, allowVoid: { cause: 'wrong_model', detail: 'x' } })], 0)).toMatchObject({
      outcome: 'unjudged',
    });
    expect(decide([B, voided])).toMatchObject({ outcome: 'block' });
  });
});

const TEXT = 'R1: a number\nAll else is allowed.';
const NONCE = '7k3f9q';
describe('the other way round', () => {
  const says: Readonly<Record<string, readonly [allow: string, block: string]>> = {
    temper: [`{"compliant":1,"rule":null,"nonce":"${NONCE}"}`, `{"compliant":0,"rule":"R1","nonce":"${NONCE}"}`],
    'gpt-oss-safeguard': ['{"compliant": 1}', '{"compliant": 0, "policy_category": "R1"}'],
    label: ['1', '0'],
  };
  it.each(Object.entries(says))('%s: asked and read with its labels changed over', (name, [allow, block]) => {
    const policy = definePolicy('p', TEXT, name as 'label');
    const contract = CONTRACTS[name as 'label'];
    const expected = { nonce: NONCE, rules: policy.rules, policy: policy.text };
    expect(contract.swaps(policy.text)).toBe(true);
    expect(contract.parse(allow, { ...expected, swapped: true })).toMatchObject({ outcome: 'allow' });
    expect(contract.parse(block, { ...expected, swapped: true })).toMatchObject({ outcome: 'block', rule: 'R1' });
    // Read the straight way they are nothing, or the other thing.
    expect(contract.parse(allow, expected).outcome).not.toBe('allow');
    const request = { policy: policy.text, content: 'x', channel: 'final', nonce: NONCE, contract: name as 'label' };
    expect(judgeMessages({ ...request, swapped: true })).not.toEqual(judgeMessages(request));
  });
  it('a policy that says how to answer, and judges with templates of their own, are asked one way alone', () => {
    expect(CONTRACTS['gpt-oss-safeguard'].swaps('Answer {"violation": 0 or 1}')).toBe(false);
    expect(CONTRACTS.label.swaps('Answer 1 if the text breaks a rule.')).toBe(false);
    for (const name of ['llama-guard', 'qwen3guard'] as const) expect(CONTRACTS[name].swaps(TEXT)).toBe(false);
  });
});

/** A judge by contract label that always says the same character. */
const leaning = (says: string): Judge & { readonly asked: JudgeRequest[] } => {
  const asked: JudgeRequest[] = [];
  return {
    name: 'j',
    digest: 'd',
    asked,
    judge: async (request) => {
      asked.push(request);
      return { text: says, finish: 'stop' };
    },
  };
};
const label = definePolicy('p', 'R1: a number\nAll else is allowed.', 'label');

describe('votes on a text', () => {
  it('a judge that always says 0, or 1, allows nothing', async () => {
    for (const says of ['0', '1']) {
      const screen = createScreen({ policies: [label], judge: leaning(says), judging: { votes: 2 } });
      const { verdicts } = await screen.screen({ final: 'x' });
      expect(verdicts).toMatchObject([{ outcome: 'block', votes: { allow: 1, block: 1, unjudged: 0 }, score: 0 }]);
    }
    expect((await createScreen({ policies: [label], judge: leaning('0') }).screen({ final: 'x' })).outcome).toBe(
      'allow',
    );
  });
  it('the first of each way is the most probable answer, others are sampled by a seed', async () => {
    const judge = leaning('0');
    await createScreen({ policies: [label], judge, judging: { votes: 5 } }).screen({ final: 'x' });
    expect(judge.asked.map(({ swapped, sampling }) => [swapped ?? false, sampling?.temperature ?? 0])).toEqual([
      [false, 0],
      [true, 0],
      [false, 0.7],
      [true, 0.7],
      [false, 0.7],
    ]);
    expect(new Set(judge.asked.flatMap((r) => r.sampling?.seed ?? [])).size).toBe(3);
  });
  it('how many there are is part of the digests', async () => {
    const digests = await Promise.all(
      [1, 2, 3].map(async (votes) => {
        const screen = createScreen({ policies: [label], judge: leaning('1'), judging: { votes } });
        return (await screen.screen({ final: 'x' })).verdicts[0]?.digests;
      }),
    );
    expect(new Set(digests.map((d) => d?.judging)).size).toBe(3);
    expect(new Set(digests.map((d) => d?.judge)).size).toBe(3);
  });
});

describe('the score', () => {
  const token = (text: string, logprob = -0.1, top: readonly (readonly [string, number])[] = []) => ({
    bytes: Buffer.from(text),
    logprob,
    top: top.map(([t, l]) => ({ bytes: Buffer.from(t), logprob: l })),
  });
  const at = (text: string, swapped = false, name: (typeof CONTRACT_NAMES)[number] = 'temper') => {
    const place = CONTRACTS[name].verdictAt(text, swapped);
    if (!place) throw new Error('no verdict');
    return place;
  };
  it('is the log-odds at the token of the verdict, whatever it is part of', () => {
    const said = '{"violation":0,"rule":null}';
    const tokens = (one: ReturnType<typeof token>) => [token('{"violation":'), one, token(',"rule":null}')];
    expect(
      verdictScore(
        said,
        tokens(
          token('0', -0.1, [
            ['0', -0.1],
            ['1', -2.4],
          ]),
        ),
        at(said),
      ),
    ).toBeCloseTo(-2.3);
    const joined = [token('{"viol'), token('ation":0,', -0.5, [['ation":1,', -1.5]]), token('"rule":null}')];
    expect(verdictScore(said, joined, at(said))).toBeCloseTo(-1);
    // The other one is not told: it gets what is left over.
    expect(verdictScore(said, tokens(token('0', Math.log(0.9))), at(said))).toBeCloseTo(-Math.log(9));
    const some: readonly (readonly [string, number])[] = [['2', Math.log(0.04)]];
    expect(verdictScore(said, tokens(token('0', Math.log(0.9), some)), at(said))).toBeCloseTo(-Math.log(0.9 / 0.06));
    expect(verdictScore(said, tokens(token('0', 0)), at(said))).toBeCloseTo(24 * -Math.LN2);
    const block = '{"violation":1,"rule":"R1"}';
    expect(verdictScore(block, tokens(token('1', -0.1, [['0', -3.1]])), at(block))).toBeCloseTo(3);
  });
  it('of the other way round has the same sign', () => {
    const said = '{"compliant":1,"rule":null,"nonce":"x"}';
    const tokens = [token('{"compliant":'), token('1', -0.1, [['0', -2.1]]), token(',"rule":null,"nonce":"x"}')];
    expect(verdictScore(said, tokens, at(said, true))).toBeCloseTo(-2);
    expect(verdictScore(' 0', [token(' '), token('0', -1, [['1', -2]])], at(' 0', false, 'label'))).toBeCloseTo(-1);
  });
  it('is none where nothing is known of the token', () => {
    expect(verdictScore('{"violation":0', [], at('{"violation":0'))).toBeNull();
    for (const name of CONTRACT_NAMES) expect(CONTRACTS[name].verdictAt('hello', false)).toBeNull();
  });
  it('goes into the verdict of a judge that tells it', async () => {
    const judge = createCheckpointJudge({
      name: 'c',
      modelDigest: 'm',
      generate: async ({ user }) => {
        const final = `{"violation":0,"rule":null,"nonce":"${/BEGIN (\S+)/.exec(user)?.[1]}"}`;
        const tokens = [token('{"violation":'), token('0', -0.1, [['1', -4.1]]), token(final.slice(14))];
        return { final, analysis: '', finish: 'stop', tokens };
      },
    });
    const policy: Policy = definePolicy('p', TEXT);
    const { verdicts } = await createScreen({ policies: [policy], judge }).screen({ final: 'x' });
    expect(verdicts[0]?.score).toBeCloseTo(-4);
  });
});
