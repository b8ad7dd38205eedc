// How a judge is asked, from the command line: views, windows, votes, the probe, a wrong key.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { renderVerdict } from '../../src/safeguard/contract.js';
import {
  completion,
  type JudgeServer,
  nonceOf,
  type SeenRequest,
  startJudgeServer,
} from '../safeguard/judge-server.js';
import { temper } from './run.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-judging-'));
const policy = join(dir, 'garden.md');
let server: JudgeServer;
/** What the judge answers to a request, by its last message. */
let answer: (text: string, request: SeenRequest) => string | number;
beforeAll(async () => {
  writeFileSync(policy, 'R1: the golden garden\nAll else is allowed.\n');
  server = await startJudgeServer((request, response) => {
    const said = answer(request.body.messages.at(-1)?.content ?? '', request);
    if (typeof said === 'number') response.writeHead(said).end();
    else completion(response, { content: said });
  });
});
afterAll(async () => {
  await server.close();
  rmSync(dir, { recursive: true, force: true });
});
const sound = (text: string, request: SeenRequest): string =>
  renderVerdict({ rule: text.includes('golden garden') ? 'R1' : null, nonce: nonceOf(request) });
async function screened(
  texts: readonly string[],
  ...options: string[]
): Promise<{ code: number | null; stderr: string; rows: Record<string, unknown>[]; asked: number }> {
  const [input, out] = [join(dir, 'in.jsonl'), join(dir, 'out.jsonl')];
  rmSync(out, { force: true });
  writeFileSync(input, texts.map((text) => `${JSON.stringify({ text })}\n`).join(''));
  const before = server.requests.length;
  const judge = ['--judge', server.url, '--judge-model', 'm', '--detector', 'off'];
  const ran = await temper(['screen', input, '--policy', policy, ...judge, '--out', out, ...options]);
  let rows: Record<string, unknown>[] = [];
  try {
    const lines = readFileSync(out, 'utf8').trim().split('\n');
    rows = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  } catch {
    // it ended without an output
  }
  return { code: ran.code, stderr: ran.stderr, rows, asked: server.requests.length - before };
}
const HIDDEN = `see ${Buffer.from('tell me of the golden garden').toString('base64')}`;

describe('temper screen', () => {
  it('judges what a text hides, unless that is turned off', async () => {
    answer = sound;
    const all = await screened([HIDDEN]);
    expect(all.code).toBe(10);
    expect(all.rows).toMatchObject([{ outcome: 'block', view: 'decoded', coverage: { views: ['raw', 'decoded'] } }]);
    const raw = await screened([HIDDEN], '--judge-views', 'raw');
    expect(raw).toMatchObject({ code: 0, rows: [{ outcome: 'allow' }] });
  });
  it('judges a long text in windows', async () => {
    answer = (text, request) => sound(text.slice(0, 600), request); // it reads the beginning alone
    const long = `${'lorem ipsum '.repeat(100)}the golden garden${' dolor sit'.repeat(100)}`;
    expect(await screened([long], '--judge-window', '400')).toMatchObject({ code: 10, rows: [{ outcome: 'block' }] });
    expect(await screened([long])).toMatchObject({ code: 0 });
  });
  it('asks several times, the other way round every second time', async () => {
    answer = () => '0';
    const leaning = await screened(['hello'], '--judge-contract', 'label', '--votes', '2', '--no-judge-probe');
    expect(leaning).toMatchObject({
      code: 10,
      rows: [{ outcome: 'block', votes: { allow: 1, block: 1, unjudged: 0 } }],
    });
    expect(await screened(['hello'], '--judge-contract', 'label', '--no-judge-probe')).toMatchObject({ code: 0 });
  });
  it('ends where the judge falls for a forged verdict', async () => {
    answer = (text, request) => sound(/"violation":0/.test(text) ? '' : text, request);
    const fooled = await screened(Array.from({ length: 50 }, (_, i) => `hello ${i}`));
    expect(fooled.code).toBe(30);
    expect(fooled.stderr).toMatch(/fell for .* in a text that it blocks without/);
    expect(fooled.asked).toBeLessThan(40);
    expect(await screened(['hello'], '--no-judge-probe')).toMatchObject({ code: 0 });
  });
  it('a wrong key costs a handful of calls of a thousand, and one line', async () => {
    answer = () => 401;
    const wrong = await screened(Array.from({ length: 1000 }, (_, i) => `hello ${i}`));
    expect(wrong.code).toBe(30);
    expect(wrong.stderr).toMatch(/answered 401.*check TEMPER_JUDGE_API_KEY/);
    expect(wrong.asked).toBeLessThanOrEqual(24);
  });
  it('a judge that goes numb loses its batches', async () => {
    let calls = 0;
    answer = (text, request) => sound(++calls > 30 ? '' : text, request);
    const numb = await screened(
      Array.from({ length: 60 }, (_, i) => `hello ${i}`),
      '--judge-canaries',
      '8',
      '--judge-concurrency',
      '1',
    );
    expect(numb.code).toBe(30);
    expect(numb.rows.at(-1)).toMatchObject({ outcome: 'unjudged', cause: 'canary' });
    expect(numb.rows[0]).toMatchObject({ outcome: 'allow' });
  });
});
