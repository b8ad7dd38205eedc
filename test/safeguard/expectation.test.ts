// What a judge is thought to answer: for guesses alone, learnt from what it answered last.
import { expect, it } from 'vitest';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { CONTRACT_NAMES } from '../../src/safeguard/contracts/contract.js';
import { CONTRACTS } from '../../src/safeguard/contracts/index.js';
import { type CheckpointReply, createCheckpointJudge } from '../../src/safeguard/judges/checkpoint.js';
import { Expectation } from '../../src/safeguard/judges/expectation.js';
import type { JudgeRequest } from '../../src/safeguard/types.js';

const { signal } = new AbortController();
const request = (nonce: string, more: Partial<JudgeRequest> = {}): JudgeRequest => ({
  policy: 'C1: a phone number',
  content: 'a text',
  channel: 'final',
  nonce,
  signal,
  ...more,
});
const reply = (final: string, analysis = '', finish: CheckpointReply['finish'] = 'stop'): CheckpointReply => ({
  final,
  analysis,
  finish,
});

it('at first the allow of the contract, in each of them one that it reads as such', () => {
  for (const name of CONTRACT_NAMES)
    for (const swapped of [false, true]) {
      const turns = new Expectation().expect(request('1a2b3c', { contract: name, swapped }));
      expect(turns).toHaveLength(1);
      const said = turns[0]?.at(-1)?.content ?? '';
      const contract = CONTRACTS[name];
      const asked = swapped && contract.swaps('C1: a phone number');
      const parsed = contract.parse(contract.allowed('1a2b3c', asked), {
        nonce: '1a2b3c',
        rules: contract.rules ?? [],
        policy: 'C1: a phone number',
        swapped: asked,
      });
      expect([name, parsed.outcome]).toEqual([name, 'allow']);
      if (asked === swapped) expect(said).toBe(contract.allowed('1a2b3c', swapped));
    }
});
it('then what it said of late, with this nonce: what came most often last', () => {
  const expectation = new Expectation();
  expectation.learn(request('1a2b3c'), reply(renderVerdict({ rule: null, nonce: '1a2b3c' }), 'it tells nothing'));
  expect(expectation.expect(request('9z8y7x'))).toEqual([
    [
      { channel: 'analysis', content: 'it tells nothing' },
      { channel: 'final', content: '{"violation":0,"rule":null,"nonce":"9z8y7x"}' },
    ],
  ]);
  expectation.learn(request('4d5e6f'), reply('{ "violation": 1, "rule": "C1", "nonce": "4d5e6f" }'));
  expectation.learn(request('7g8h9j'), reply(renderVerdict({ rule: null, nonce: '7g8h9j' }), 'it tells nothing'));
  const [block, allow, ...others] = expectation.expect(request('9z8y7x'));
  expect(others).toEqual([]);
  expect(block).toEqual([{ channel: 'final', content: '{ "violation": 1, "rule": "C1", "nonce": "9z8y7x" }' }]);
  expect(allow?.[0]?.content).toBe('it tells nothing');
});
it('of one policy and way of asking nothing is taken for another, and nothing from what is no verdict', () => {
  const expectation = new Expectation();
  const usual = expectation.expect(request('9z8y7x'));
  const said = renderVerdict({ rule: null, nonce: '1a2b3c' });
  expectation.learn(request('1a2b3c', { policy: 'another' }), reply(said, 'thoughts'));
  expectation.learn(request('1a2b3c', { swapped: true }), reply(said.replace('"violation":0', '"compliant":1'), 'so'));
  expectation.learn(request('1a2b3c'), reply(said, 'cut off', 'length'));
  expectation.learn(request('1a2b3c'), reply('I cannot judge that.', 'no'));
  expectation.learn(request('1a2b3c'), reply(renderVerdict({ rule: null, nonce: '4d5e6f' }), 'of another text'));
  expectation.learn(request('1a2b3c'), reply(said, 'long '.repeat(1000)));
  expect(expectation.expect(request('9z8y7x'))).toEqual(usual);
  expect(expectation.expect(request('9z8y7x', { policy: 'another' }))[0]?.[0]?.content).toBe('thoughts');
});
it('so many answers are remembered, those that came most', () => {
  const expectation = new Expectation();
  const learn = (thought: string, nonce: string): void =>
    expectation.learn(request(nonce), reply(renderVerdict({ rule: null, nonce }), thought));
  for (let i = 0; i < 40; i++) {
    learn('the usual', `${i % 10}a2b3c`);
    learn(`of text ${i}`, `${i % 10}d5e6f`);
  }
  const thoughts = expectation.expect(request('9z8y7x')).map((turn) => turn[0]?.content);
  expect(thoughts).toHaveLength(8);
  expect(thoughts.at(-1)).toBe('the usual');
  expect(thoughts).toContain('of text 39');
});
it('so many ways are remembered, those asked last', () => {
  const expectation = new Expectation();
  for (let i = 0; i < 100; i++) {
    const policy = `policy ${i}`;
    expectation.learn(request('1a2b3c', { policy }), reply(renderVerdict({ rule: null, nonce: '1a2b3c' }), `of ${i}`));
  }
  expect(expectation.expect(request('1a2b3c', { policy: 'policy 99' }))[0]).toHaveLength(2);
  expect(expectation.expect(request('1a2b3c', { policy: 'policy 3' }))[0]).toHaveLength(1);
});
it('a checkpoint judge tells its engine, and where the nonce stands in its prompt', async () => {
  const told: unknown[] = [];
  const judge = createCheckpointJudge({
    name: 'j',
    modelDigest: 'm',
    async generate({ user, head }, { expected }) {
      told.push([expected.map((turn) => turn.map((m) => m.content)), head]);
      const nonce = /^BEGIN (\S+)$/m.exec(user)?.[1] ?? '';
      return reply(renderVerdict({ rule: null, nonce }), 'nothing in it');
    },
  });
  for (const nonce of ['1a2b3c', '9z8y7x']) await judge.judge(request(nonce));
  await judge.judge(request('1a2b3c', { contract: 'label', channel: 'analysis' }));
  expect(told).toEqual([
    [[['{"violation":0,"rule":null,"nonce":"1a2b3c"}']], 'channel: final\nBEGIN '],
    [[['nothing in it', '{"violation":0,"rule":null,"nonce":"9z8y7x"}']], 'channel: final\nBEGIN '],
    [[['0']], ''],
  ]);
});

it('a prompt is counted once without its text: what that adds at most is known by its bytes', async () => {
  const counted: string[] = [];
  const judge = createCheckpointJudge({
    name: 'j',
    modelDigest: 'm',
    maxTokens: 100,
    contextTokens: 1100,
    // Four bytes a token, as of English.
    async count({ developer, user }) {
      counted.push(/^BEGIN \S+\n([\s\S]*)\nEND/m.exec(user)?.[1] ?? '');
      return Math.ceil((developer.length + user.length) / 4);
    },
    generate: async () => reply('', ''),
  });
  const { policy, channel } = request('', { policy: 'C1: a phone number. '.repeat(60) });
  const fits = (content: string): Promise<boolean> | undefined => judge.fits?.({ policy, channel, content }, signal);
  expect(await fits('a'.repeat(500))).toBe(true);
  expect(await fits('b'.repeat(400))).toBe(true);
  expect(counted).toEqual(['']);
  // Longer ones may fit all the same, or not: they are counted themselves.
  expect(await fits('c'.repeat(1200))).toBe(true);
  expect(await fits('d'.repeat(4000))).toBe(false);
  expect(counted.map((text) => text[0] ?? '')).toEqual(['', 'c', 'd']);
});
