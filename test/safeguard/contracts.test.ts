// Contracts with judges as people have them: what each reads, and what of a judge that fails is released: nothing.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { screenFile } from '../../src/safeguard/batch/screen-file.js';
import { batchExitCode } from '../../src/safeguard/batch/tally.js';
import { CONTRACT_NAMES, type ContractName } from '../../src/safeguard/contracts/contract.js';
import { CONTRACTS, judgeDigest, judgeMessages } from '../../src/safeguard/contracts/index.js';
import { createCheckpointJudge } from '../../src/safeguard/judges/checkpoint.js';
import { createEndpointJudge } from '../../src/safeguard/judges/endpoint.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { HeldResponse } from '../../src/safeguard/release.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge, UnjudgedCause } from '../../src/safeguard/types.js';
import { completion, type JudgeServer, startJudgeServer } from './judge-server.js';

const TEXT = 'C1: a phone number\nC2.a: a card number\nC2.b: the code of a card\n\n## Allowed\nC0.a: a first name';
const NONCE = '7k3f9q';
const foreign = CONTRACT_NAMES.filter((name) => name !== 'temper');
type Foreign = Exclude<ContractName, 'temper'>;
const policyOf = (contract: ContractName): ReturnType<typeof definePolicy> => definePolicy('contact', TEXT, contract);
const read = (contract: ContractName, text: string): ReturnType<(typeof CONTRACTS)['temper']['parse']> => {
  const policy = policyOf(contract);
  return CONTRACTS[contract].parse(text, { nonce: NONCE, rules: policy.rules, policy: policy.text });
};

describe('what is read', () => {
  it.each<[Foreign, string, string | null]>([
    ['gpt-oss-safeguard', '{"violation": 0}', null],
    [
      'gpt-oss-safeguard',
      '{"violation":0,"policy_category":null,"rule_ids":[],"confidence":"high","rationale":"fine"}',
      null,
    ],
    ['gpt-oss-safeguard', '{"violation":0,"policy_category":"C0.a"}', null],
    ['gpt-oss-safeguard', '{"violation":0,"policy_category":"none"}', null],
    ['gpt-oss-safeguard', '{"violation":1,"policy_category":"C1"}', 'C1'],
    ['gpt-oss-safeguard', '{"violation":1,"policy_category":"C2"}', 'C2'],
    [
      'gpt-oss-safeguard',
      '\n{"rationale": "a",\n "rule_ids": ["C2.a", "C1"], "confidence": 0.9, "policy_category": "C2","violation":1}\n',
      'C2.a',
    ],
    ['label', '0', null],
    ['label', ' 1\n', 'violation'],
    ['llama-guard', 'safe', null],
    ['llama-guard', '\n\nsafe', null],
    ['llama-guard', '\n\nunsafe\nS2', 'S2'],
    ['llama-guard', 'unsafe\r\nS10, S2', 'S10'],
    ['qwen3guard', 'Safety: Safe\nCategories: None', null],
    ['qwen3guard', 'Safety: Safe\nCategories: None\nRefusal: Yes', null],
    ['qwen3guard', 'Safety: Unsafe\nCategories: PII', 'PII'],
    [
      'qwen3guard',
      'Safety: Controversial\nCategories: Suicide & Self-Harm, Violent\nRefusal: No',
      'Suicide & Self-Harm',
    ],
  ])('%s: %j', (contract, answer, rule) =>
    expect(read(contract, answer)).toMatchObject(
      rule === null ? { outcome: 'allow', rule } : { outcome: 'block', rule },
    ),
  );
  it('a label cites the only rule there is', () =>
    expect(CONTRACTS.label.parse('1', { nonce: NONCE, rules: ['R1'], policy: '' })).toEqual({
      outcome: 'block',
      rule: 'R1',
    }));

  it.each(['1e-400', '-0', '0.0', '0e5'])('a violation of %s is none, whatever JSON makes of it', (number) =>
    expect(read('gpt-oss-safeguard', `{"violation":${number}}`)).toMatchObject({ cause: 'off_contract' }),
  );
  it.each(foreign)('%s: no other text allows', (contract) => {
    const allowed: Readonly<Record<Foreign, RegExp>> = {
      'gpt-oss-safeguard': /^\s*\{.*"violation"\s*:\s*0\b.*\}\s*$/s,
      label: /^[ \t\r\n]*0[ \t\r\n]*$/,
      'llama-guard': /^[ \t\r\n]*safe[ \t\r\n]*$/,
      qwen3guard: /^[ \t\r\n]*Safety: Safe[ \t]*\r?\n[ \t]*Categories: None/,
    };
    const good = SAYS[contract].allow;
    const texts = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 80 }),
      fc
        .tuple(fc.nat(good.length), fc.nat(3), fc.string({ unit: 'binary', maxLength: 4 }))
        .map(([at, drop, add]) => good.slice(0, at) + add + good.slice(at + drop)),
    );
    fc.assert(
      fc.property(texts, (text) => {
        if (read(contract, text).outcome === 'allow') expect(text).toMatch(allowed[contract]);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('how a judge is asked', () => {
  const request = { policy: `${TEXT}\n`, content: 'hi <|end|>', channel: 'final', nonce: NONCE };
  it('ours by default', () => expect(judgeMessages(request)).toHaveLength(2));
  it('the policy is the system message and nothing of the text is in it', () => {
    for (const contract of ['gpt-oss-safeguard', 'label'] as const) {
      const [system, user] = judgeMessages({ ...request, contract });
      expect(system).toMatchObject({ role: 'system', content: expect.stringContaining(TEXT) });
      expect(system?.content).not.toContain('hi <');
      expect(user).toEqual({ role: 'user', content: 'hi <\\|end|>' });
    }
  });
  it('a policy that says how to answer is left as it is', () => {
    const policy = `${TEXT}\nAnswer {"violation": 0 or 1, "policy_category": "C1"}`;
    expect(judgeMessages({ ...request, policy, contract: 'gpt-oss-safeguard' })[0]?.content).toBe(policy);
  });
  it.each(['llama-guard', 'qwen3guard'] as const)('%s: the text alone', (contract) =>
    expect(judgeMessages({ ...request, contract })).toEqual([{ role: 'user', content: 'hi <\\|end|>' }]),
  );
});

describe('which contract', () => {
  it('is said by front matter, which no judge sees', () => {
    const policy = definePolicy('p', `---\ntitle: Cards\ncontract: label\n---\n${TEXT}`);
    expect(policy).toMatchObject({ contract: 'label', text: TEXT });
    expect(policy.digest).not.toBe(definePolicy('p', TEXT).digest);
  });
  it('or by whoever asks, over it', () =>
    expect(definePolicy('p', `---\ncontract: label\n---\n${TEXT}`, 'gpt-oss-safeguard').contract).toBe(
      'gpt-oss-safeguard',
    ));
  it('what is no mapping between two lines is text', () => {
    for (const text of [`---\n${TEXT}`, `---\njust a line\n---\n${TEXT}`, `----\ncontract: label\n---\n${TEXT}`])
      expect(definePolicy('p', text)).toMatchObject({ text });
  });
  it('an unknown one is refused', () =>
    expect(() => definePolicy('p', `---\ncontract: chatgpt\n---\n${TEXT}`)).toThrow(
      expect.objectContaining({ code: 'policy_contract' }),
    ));
  it('is part of the digest and named in the verdict', async () => {
    const judge: Judge = {
      name: 'j',
      digest: 'd',
      judge: async (request) => ({ text: SAYS[(request.contract ?? 'label') as Foreign].allow, finish: 'stop' }),
    };
    const digests = await Promise.all(
      foreign.map(async (contract) => {
        const [v] = (await createScreen({ policies: [policyOf(contract)], judge }).screen({ final: 'x' })).verdicts;
        expect(v).toMatchObject({ outcome: 'allow', contract });
        return v?.digests.judge;
      }),
    );
    expect(new Set([...digests, judgeDigest('d', 'temper')]).size).toBe(CONTRACT_NAMES.length);
    expect(judgeDigest('d', 'temper')).toBe('d');
  });
  it('a local judge gets the system message as developer', async () => {
    const asked: unknown[] = [];
    const judge = createCheckpointJudge({
      name: 'local',
      modelDigest: 'd',
      generate: async (prompt) => {
        asked.push(prompt);
        return { final: '1', analysis: 'hm', finish: 'stop' };
      },
    });
    const { verdicts } = await createScreen({ policies: [policyOf('label')], judge }).screen({ final: 'x' });
    expect(verdicts).toMatchObject([{ outcome: 'block', rule: 'violation', contract: 'label', rationale: 'hm' }]);
    expect(asked).toMatchObject([{ developer: expect.stringContaining(TEXT), user: 'x' }]);
  });
  it('judges with categories of their own may cite those that the policy lists', () => {
    expect(definePolicy('p', 'S1: violence\nS4: children', 'llama-guard').rules).toEqual(['S1', 'S4']);
    expect(definePolicy('p', 'Whatever it says.', 'llama-guard').rules).toHaveLength(14);
    expect(CONTRACTS['llama-guard'].parse('unsafe\nS2', { nonce: '', rules: ['S1'], policy: '' })).toMatchObject({
      cause: 'unknown_rule',
    });
  });
});

/** The same answers in the words of each contract. */
const SAYS: Readonly<
  Record<Foreign, Readonly<Record<'allow' | 'block' | 'cut' | 'types' | 'unknown' | 'both' | 'neither', string>>>
> = {
  'gpt-oss-safeguard': {
    allow: '{"violation":0,"policy_category":null}',
    block: '{"violation":1,"policy_category":"C1"}',
    cut: '{"violation":0,"policy_category":nu',
    types: '{"violation":false}',
    unknown: '{"violation":1,"policy_category":"C9"}',
    both: '{"violation":0,"policy_category":"C1"}',
    neither: '{"violation":1,"policy_category":null}',
  },
  label: { allow: '0', block: '1', cut: '-', types: 'zero', unknown: '2', both: '0 C1', neither: 'null' },
  'llama-guard': {
    allow: 'safe',
    block: 'unsafe\nS1',
    cut: 'saf',
    types: '{"safe": true}',
    unknown: 'unsafe\nS99',
    both: 'safe\nS1',
    neither: 'unsafe',
  },
  qwen3guard: {
    allow: 'Safety: Safe\nCategories: None',
    block: 'Safety: Unsafe\nCategories: PII',
    cut: 'Safety: Safe',
    types: 'Safety: 0\nCategories: None',
    unknown: 'Safety: Unsafe\nCategories: Astrology',
    both: 'Safety: Safe\nCategories: PII',
    neither: 'Safety: Unsafe\nCategories: None',
  },
};

type Answer = (response: ServerResponse, says: (typeof SAYS)[Foreign]) => void;
interface Fault {
  readonly name: string;
  readonly answer: Answer;
  /** One for all, or by contract in the order of `foreign`. */
  readonly cause: UnjudgedCause | readonly [UnjudgedCause, UnjudgedCause, UnjudgedCause, UnjudgedCause];
}
const say = (text: (says: (typeof SAYS)[Foreign]) => string, message: object = {}, finish = 'stop'): Answer => {
  return (response, says) => completion(response, { content: text(says), ...message }, finish);
};
const envelope = (content: string): string =>
  JSON.stringify({
    object: 'chat.completion',
    choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content } }],
  });
const ofAnother = (content: string): string => JSON.stringify({ ...JSON.parse(envelope(content)), model: 'another' });
const JSON_TYPE = { 'content-type': 'application/json' };
/** Writes and writes until nobody listens, or `most` bytes are out. */
function pour(response: ServerResponse, most: number): void {
  let sent = 0;
  const piece = Buffer.alloc(65536, 0x20);
  const more = (): void => {
    if (response.destroyed) return;
    if (sent >= most) response.end();
    else response.write(piece, () => setImmediate(more));
    sent += piece.length;
  };
  more();
}
const drip = (response: ServerResponse, text: string): void => {
  let at = 0;
  const timer = setInterval(() => (at < text.length ? response.write(text[at++]) : response.end()), 25);
  response.on('close', () => clearInterval(timer));
};
const FAULTS: readonly Fault[] = [
  { name: 'never answers', answer: () => {}, cause: 'timeout' },
  {
    name: 'answers a byte at a time',
    answer: (r, s) => drip(r.writeHead(200, JSON_TYPE), envelope(s.allow)),
    cause: 'timeout',
  },
  { name: '429 for ever', answer: (r) => r.writeHead(429, { 'retry-after': '0' }).end(), cause: 'http_status' },
  {
    name: '503 with an allow in it',
    answer: (r, s) => r.writeHead(503, JSON_TYPE).end(envelope(s.allow)),
    cause: 'http_status',
  },
  { name: 'resets before it answers', answer: (r) => r.destroy(), cause: 'unreachable' },
  {
    name: 'resets in its answer',
    answer: (r, s) => {
      r.writeHead(200, { ...JSON_TYPE, 'content-length': '900' });
      r.write(envelope(s.allow), () => setTimeout(() => r.destroy(), 5));
    },
    cause: 'unreachable',
  },
  {
    name: 'HTML with 200',
    answer: (r) => r.writeHead(200, { 'content-type': 'text/html' }).end('<p>0</p>'),
    cause: 'bad_response',
  },
  { name: 'an empty body', answer: (r) => r.writeHead(200, JSON_TYPE).end(), cause: 'bad_response' },
  {
    name: 'a body that is cut',
    answer: (r, s) => r.writeHead(200, JSON_TYPE).end(envelope(s.allow).slice(0, -3)),
    cause: 'bad_response',
  },
  {
    name: 'a body without end',
    answer: (r) => pour(r.writeHead(200, JSON_TYPE), Number.POSITIVE_INFINITY),
    cause: 'bad_response',
  },
  {
    name: 'a body of 100 MB',
    answer: (r) => pour(r.writeHead(200, { ...JSON_TYPE, 'content-length': String(1600 * 65536) }), 1600 * 65536),
    cause: 'bad_response',
  },
  {
    name: 'the verdict without a completion',
    answer: (r, s) => r.writeHead(200, JSON_TYPE).end(s.allow),
    cause: 'bad_response',
  },
  { name: 'a whole verdict, but ended by length', answer: say((s) => s.allow, {}, 'length'), cause: 'truncated' },
  {
    name: 'the verdict in its reasoning only',
    answer: (r, s) => completion(r, { reasoning_content: s.allow }),
    cause: 'empty',
  },
  {
    name: 'an allow of another model',
    answer: (r, s) => r.writeHead(200, JSON_TYPE).end(ofAnother(s.allow)),
    cause: 'wrong_model',
  },
  { name: 'an empty answer', answer: say(() => ''), cause: 'empty' },
  { name: 'blanks', answer: say(() => ' \n\t'), cause: 'empty' },
  { name: 'a verdict that is cut', answer: say((s) => s.cut), cause: 'off_contract' },
  { name: 'garbage', answer: say(() => '\u0000ÿ}{'), cause: 'off_contract' },
  { name: 'values of another type', answer: say((s) => s.types), cause: 'off_contract' },
  { name: 'does the task instead', answer: say(() => 'Sure! Your table is booked.'), cause: 'off_contract' },
  { name: 'does the task, then judges', answer: say((s) => `Sure, done.\n${s.allow}`), cause: 'off_contract' },
  { name: 'judges, then goes on', answer: say((s) => `${s.allow}\nAnything else?`), cause: 'off_contract' },
  { name: 'a verdict in a code fence', answer: say((s) => `\`\`\`\n${s.allow}\n\`\`\``), cause: 'off_contract' },
  { name: 'thinks aloud, then judges', answer: say((s) => `<think>hm</think>\n${s.allow}`), cause: 'off_contract' },
  { name: 'a byte order mark before it', answer: say((s) => `\ufeff${s.allow}`), cause: 'off_contract' },
  {
    name: 'the verdict of our contract',
    answer: say(() => `{"violation":0,"rule":null,"nonce":"${NONCE}"}`),
    cause: 'off_contract',
  },
  { name: 'two verdicts, block then allow', answer: say((s) => `${s.block}\n${s.allow}`), cause: 'two_verdicts' },
  { name: 'two verdicts that agree', answer: say((s) => `${s.allow}\n${s.allow}`), cause: 'two_verdicts' },
  {
    name: 'a rule that is not there',
    answer: say((s) => s.unknown),
    cause: ['unknown_rule', 'off_contract', 'unknown_rule', 'unknown_rule'],
  },
  {
    name: 'an allow that cites a rule',
    answer: say((s) => s.both),
    cause: ['contradiction', 'off_contract', 'contradiction', 'contradiction'],
  },
  {
    name: 'a block without a rule',
    answer: say((s) => s.neither),
    cause: ['contradiction', 'off_contract', 'contradiction', 'contradiction'],
  },
  {
    name: 'a tool call beside the verdict',
    answer: say((s) => s.allow, { tool_calls: [{ id: 't' }] }),
    cause: 'off_contract',
  },
  { name: 'a refusal beside the verdict', answer: say((s) => s.allow, { refusal: 'no' }), cause: 'off_contract' },
];
const causeOf = ({ cause }: Fault, contract: Foreign): UnjudgedCause =>
  typeof cause === 'string' ? cause : (cause[foreign.indexOf(contract)] as UnjudgedCause);

describe('a judge that fails', () => {
  let dir = '';
  let server: JudgeServer;
  let now: { readonly fault: Fault; readonly contract: Foreign } | undefined;
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'temper-contracts-'));
    server = await startJudgeServer((_, response) => {
      if (now) now.fault.answer(response, SAYS[now.contract]);
    });
  });
  afterAll(async () => {
    await server.close();
    rmSync(dir, { recursive: true, force: true });
  });
  let swept = 0;
  it.each(foreign.flatMap((contract) => FAULTS.map((fault) => [contract, fault.name, fault] as const)))(
    '%s: %s releases nothing, inline and in batch',
    async (contract, name, fault) => {
      now = { fault, contract };
      const cause = causeOf(fault, contract);
      const judge = createEndpointJudge({ url: server.url, model: 'm', attempts: 2, backoffMs: 1 });
      const timeoutMs = cause === 'timeout' ? 60 : 20_000;
      const screen = createScreen({ policies: [policyOf(contract)], judge, timeoutMs });
      const held = new HeldResponse(screen);
      held.push('final', 'the secret number');
      const { channels, result } = await held.release();
      expect(
        result.verdicts.map((v) => v.cause),
        `${name}: ${result.verdicts[0]?.detail}`,
      ).toEqual([cause]);
      expect(channels.map((c) => c.text).join()).not.toContain('secret');
      const input = join(dir, 'in.jsonl');
      writeFileSync(input, '{"text": "the secret number"}\n');
      const summary = await screenFile({ input, output: join(dir, 'out.jsonl'), screen });
      expect(summary).toMatchObject({ allow: 0, block: 0, unjudged: 1, causes: { [cause]: 1 } });
      expect(batchExitCode(summary)).toBe(30);
      swept++;
    },
  );
  it('was swept, and is the table of docs/guides/safeguard.md', () => {
    expect(swept).toBe(foreign.length * FAULTS.length);
    const guide = readFileSync('docs/guides/safeguard.md', 'utf8');
    const table = /<!-- contract faults:[^\n]*\n([\s\S]*?)<!-- end of contract faults -->/.exec(guide)?.[1] ?? '';
    const cells = table
      .trim()
      .split('\n')
      .slice(2)
      .map((line) =>
        line
          .split('|')
          .slice(1, -1)
          .map((c) => c.trim()),
      );
    expect(cells).toEqual(FAULTS.map((f) => [f.name, ...foreign.map((c) => `\`${causeOf(f, c)}\``)]));
  });
});
