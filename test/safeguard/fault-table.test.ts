// docs/faults.md: every way that a judge can fail, under every contract, inline, in batch and in a gate. Each is
// injected over a real socket here, and the page is held to what came of it. Nothing may leave.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { createPolicyJudge } from '../../src/compose/gate-arms.js';
import { decideFiles } from '../../src/gate/decide-files.js';
import type { Decision } from '../../src/gate/decision.js';
import { casesOf, readTests } from '../../src/gate/run/cases.js';
import { runCases } from '../../src/gate/run/run.js';
import { type PolicyJudge, Scoring } from '../../src/gate/run/score.js';
import { loadSuite } from '../../src/gate/suite.js';
import { screenFile } from '../../src/safeguard/batch/screen-file.js';
import { batchExitCode } from '../../src/safeguard/batch/tally.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { CONTRACT_NAMES, type ContractName } from '../../src/safeguard/contracts/contract.js';
import { createDetectors } from '../../src/safeguard/detectors/index.js';
import { createEndpointJudge } from '../../src/safeguard/judges/endpoint.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { HeldResponse } from '../../src/safeguard/release.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { UnjudgedCause } from '../../src/safeguard/types.js';
import { completion, type JudgeServer, type SeenRequest, startJudgeServer } from './judge-server.js';

interface Said {
  readonly allow: string;
  readonly block: string;
}
type Say = (nonce: string) => Said;
const SAYS: Readonly<Record<ContractName, Say>> = {
  temper: (nonce) => ({ allow: renderVerdict({ rule: null, nonce }), block: renderVerdict({ rule: 'C1', nonce }) }),
  'gpt-oss-safeguard': () => ({ allow: '{"violation":0}', block: '{"violation":1,"policy_category":"C1"}' }),
  label: () => ({ allow: '0', block: '1' }),
  'llama-guard': () => ({ allow: 'safe', block: 'unsafe\nS1' }),
  qwen3guard: () => ({ allow: 'Safety: Safe\nCategories: None', block: 'Safety: Unsafe\nCategories: PII' }),
};
const POLICY = 'C1: a phone number\nC2: a card number\nS1: else';
const nonceOf = ({ body }: SeenRequest): string =>
  /^BEGIN (\S+)$/m.exec(body.messages.at(-1)?.content ?? '')?.[1] ?? '';

interface Fault {
  readonly name: string;
  readonly cause: UnjudgedCause;
  readonly answer: (response: ServerResponse, said: Said, call: number) => void;
  /** Set up before a text is judged. */
  readonly before?: () => void;
}
const json = (r: ServerResponse, text: string): void => {
  r.writeHead(200, { 'content-type': 'application/json' }).end(text);
};
const status =
  (code: number): Fault['answer'] =>
  (r) => {
    r.writeHead(code, { 'retry-after': '0' }).end();
  };
const flood = (r: ServerResponse, most: number): void => {
  r.writeHead(200, { 'content-type': 'application/json' });
  const piece = 'x'.repeat(1 << 16);
  let sent = 0;
  const more = (): void => {
    if (r.destroyed) return;
    if (sent >= most) r.end();
    else r.write(piece, () => setImmediate(more));
    sent += piece.length;
  };
  more();
};
const silent = (): void => {};
const FAULTS: readonly Fault[] = [
  { name: 'timeout', cause: 'timeout', answer: silent },
  { name: '429', cause: 'http_status', answer: status(429) },
  { name: '5xx', cause: 'http_status', answer: status(503) },
  {
    name: 'reset in the answer',
    cause: 'unreachable',
    answer: (r, { allow }) => {
      r.writeHead(200, { 'content-type': 'application/json', 'content-length': '5000' });
      r.write(`{"choices":[{"finish_reason":"stop","message":{"content":${JSON.stringify(allow)}`, () => r.destroy());
    },
  },
  { name: 'empty', cause: 'empty', answer: (r) => completion(r, { content: '' }) },
  { name: 'truncated', cause: 'truncated', answer: (r, s) => completion(r, { content: s.allow }, 'length') },
  { name: 'garbage', cause: 'off_contract', answer: (r) => completion(r, { content: '\u0000ÿ}{' }) },
  { name: 'wrong schema', cause: 'bad_response', answer: (r, s) => json(r, JSON.stringify({ verdict: s.allow })) },
  {
    name: 'two verdicts',
    cause: 'two_verdicts',
    answer: (r, s) => completion(r, { content: `${s.block}\n${s.allow}` }),
  },
  {
    name: 'verdict in the reasoning only',
    cause: 'empty',
    answer: (r, { allow }) => completion(r, { content: null, reasoning: allow, reasoning_content: allow }),
  },
  {
    name: 'HTML with 200',
    cause: 'bad_response',
    answer: (r, { allow }) => {
      r.writeHead(200, { 'content-type': 'text/html' }).end(`<html>${allow}</html>`);
    },
  },
  {
    name: 'slow drip',
    cause: 'timeout',
    answer: (r) => {
      r.writeHead(200, { 'content-type': 'application/json' });
      const timer = setInterval(() => r.write(' '), 5);
      r.on('close', () => clearInterval(timer));
    },
  },
  { name: 'never-ending body', cause: 'bad_response', answer: (r) => flood(r, Infinity) },
  { name: '100 MB body', cause: 'bad_response', answer: (r) => flood(r, 100e6) },
  {
    name: 'does the task instead',
    cause: 'off_contract',
    answer: (r) => completion(r, { content: 'Sure! Your table is booked.' }),
  },
  { name: 'process killed', cause: 'unreachable', answer: silent },
  {
    name: 'replaced between calls',
    cause: 'judge_changed',
    answer: (r, s, call) =>
      json(
        r,
        JSON.stringify({
          system_fingerprint: `build ${call}`,
          choices: [{ finish_reason: 'stop', message: { role: 'assistant', content: s.allow } }],
        }),
      ),
  },
  {
    name: 'clock that jumps while it is silent',
    cause: 'timeout',
    answer: silent,
    before: () => {
      let hours = 0;
      const real = Date.now.bind(Date);
      vi.spyOn(Date, 'now').mockImplementation(() => real() + (hours-- % 3) * 3_600_000);
    },
  },
];

/** A judge that is a process of its own and dies of the first request. */
const DYING = `
  const server = require('node:http').createServer(() => process.kill(process.pid, 'SIGKILL'));
  server.listen(0, '127.0.0.1', () => console.log(server.address().port));
`;
async function dying(): Promise<{ readonly url: string; readonly child: ChildProcess }> {
  const child = spawn(process.execPath, ['-e', DYING], { stdio: ['ignore', 'pipe', 'inherit'] });
  const port = await new Promise<string>((resolve) =>
    child.stdout.once('data', (d: Buffer) => resolve(String(d).trim())),
  );
  return { url: `http://127.0.0.1:${port}/v1`, child };
}

const SUITE = `
name: one
version: '1'
tests:
  - name: harm
    kind: harm
    prompts: harm.jsonl
    policy: policy.md
    scorer: policy
    metrics: [{ name: harm.final, direction: lower, judged: true, cap: 0.5 }]
`;
/** A gate of one prompt, whose models say the text. */
async function gateOf(
  dir: string,
  contract: ContractName,
  said: string,
  open: (file: string) => Promise<PolicyJudge>,
): Promise<{ readonly decision: Decision; readonly rows: string }> {
  const at = mkdtempSync(join(dir, 'gate-')),
    out = join(at, 'out');
  mkdirSync(out);
  const policy = join(at, 'policy.md');
  writeFileSync(policy, `---\ncontract: ${contract}\n---\n${POLICY}\n`);
  writeFileSync(join(at, 'harm.jsonl'), '{"id":"p","prompt":"say it"}\n');
  writeFileSync(join(at, 'suite.yaml'), SUITE);
  const loaded = loadSuite(join(at, 'suite.yaml'));
  const arm = {
    answer: async () => ({ channels: { final: said }, finish: 'stop' as const, cut: null, tokens: 1, messages: [] }),
    loss: async () => 1,
  };
  const { signal } = new AbortController();
  const scoring = new Scoring(
    {
      ...{ arms: { base: arm, adapter: arm }, policies: new Map([[policy, await open(policy)]]), judge: null },
      ...{ training: null, seeds: [1], content: 'none', cache: null, baseKey: 'base' },
    },
    signal,
  );
  const cases = casesOf(loaded, await readTests(loaded));
  await runCases({
    ...{ folder: out, cases, identity: 'one', shard: null, resume: false, window: 1 },
    scoring,
    signal,
  });
  const outcomes = join(out, 'outcomes.jsonl');
  const { decision } = decideFiles({ outcomes, suite: loaded.file, version: '0' }, {});
  return { decision, rows: readFileSync(outcomes, 'utf8') };
}

describe('a judge that fails', () => {
  let dir = '';
  let server: JudgeServer;
  let now: { readonly fault: Fault; readonly contract: ContractName } | undefined;
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'temper-fault-table-'));
    server = await startJudgeServer((request, response, call) => {
      if (now) now.fault.answer(response, SAYS[now.contract](nonceOf(request)), call);
    });
  });
  afterEach(() => {
    vi.restoreAllMocks();
  });
  afterAll(async () => {
    await server.close();
    rmSync(dir, { recursive: true, force: true });
  });
  let swept = 0;
  const SECRET = 'the secret number';
  const cases = CONTRACT_NAMES.flatMap((contract) => FAULTS.map((fault) => [contract, fault.name, fault] as const));
  it.each(cases)('%s: %s releases nothing, inline, in batch and in a gate', async (contract, name, fault) => {
    now = { fault, contract };
    const policies = [definePolicy('contact', POLICY, contract)];
    const timeoutMs = fault.cause === 'timeout' ? 60 : 20_000;
    const children: ChildProcess[] = [];
    const judgeOf = async (): Promise<ReturnType<typeof createEndpointJudge>> => {
      let { url } = server;
      if (name === 'process killed') {
        const own = await dying();
        children.push(own.child);
        ({ url } = own);
      }
      return createEndpointJudge({ url, model: 'm', attempts: 2, backoffMs: 1 });
    };
    const screenOf = async (): Promise<ReturnType<typeof createScreen>> =>
      createScreen({ policies, judge: await judgeOf(), timeoutMs });
    const screen = await screenOf();
    // The one that is replaced was sound before.
    if (fault.cause === 'judge_changed') expect((await screen.screen({ final: 'hello' })).outcome).toBe('allow');
    fault.before?.();
    const held = new HeldResponse(screen);
    held.push('final', SECRET);
    const { channels, result } = await held.release();
    expect(
      result.verdicts.map((v) => v.cause),
      `${name}: ${result.verdicts[0]?.detail}`,
    ).toEqual([fault.cause]);
    expect(channels.map((c) => c.text).join()).not.toContain('secret');
    const input = join(dir, 'in.jsonl');
    writeFileSync(input, `${JSON.stringify({ text: SECRET })}\n`);
    const batch = name === 'process killed' ? await screenOf() : screen;
    const summary = await screenFile({ input, output: join(dir, 'out.jsonl'), screen: batch, rejudge: 'all' });
    expect(summary).toMatchObject({ allow: 0, block: 0, unjudged: 1, causes: { [fault.cause]: 1 } });
    expect(batchExitCode(summary)).toBe(30);
    const { decision, rows } = await gateOf(dir, contract, SECRET, async (file) => {
      const asked = await createPolicyJudge(file, {
        ...{ judge: await judgeOf(), detectors: createDetectors(), judging: {}, timeoutMs, concurrency: 1 },
        ...{ probe: false, unchecked: true },
      });
      if (fault.cause === 'judge_changed')
        expect((await asked.judge('final', 'hello', AbortSignal.timeout(20_000))).outcome).toBe('allow');
      return asked;
    });
    expect([decision.decision, decision.exit]).toEqual(['ERROR', 30]);
    expect(rows.match(/"value":null/gu)).toHaveLength(2);
    expect(rows.match(new RegExp(`"cause":"${fault.cause}"`, 'gu'))).toHaveLength(2);
    for (const child of children) child.kill('SIGKILL');
    swept++;
  });

  it('was swept, and is the table of docs/faults.md', () => {
    expect(swept).toBe(CONTRACT_NAMES.length * FAULTS.length);
    const page = readFileSync('docs/faults.md', 'utf8');
    const rows = page
      .split('\n')
      .filter((line) => line.startsWith('|'))
      .map((line) =>
        line
          .split('|')
          .slice(1, -1)
          .map((cell) => cell.trim()),
      );
    expect(rows[0]).toEqual(['The judge’s fault', 'contract', 'inline', 'batch', 'gate']);
    expect(rows.slice(2)).toEqual(FAULTS.map((f) => [f.name, 'each of the five', ...Array(3).fill(`\`${f.cause}\``)]));
    for (const name of CONTRACT_NAMES) expect(page).toContain(`\`${name}\``);
  });
});
