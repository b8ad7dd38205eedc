// Verdicts of generate and screen on record, and what is done with a log afterwards, as users do it.
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { completion, type JudgeServer, nonceOf, startJudgeServer } from '../safeguard/judge-server.js';
import { scratch } from '../verdict-log/logs.js';
import { type Ran, temper } from './run.js';

const at = scratch('log-commands');
const POLICY = join(packageRoot, 'policies', 'contact', 'policy.md');
const TEXT = 'A table for four is booked.';
let judge: JudgeServer;
beforeAll(async () => {
  judge = await startJudgeServer((request, response) => {
    const bad = JSON.stringify(request.body).includes('call me');
    completion(response, { content: renderVerdict({ rule: bad ? 'C1' : null, nonce: nonceOf(request) }) });
  });
});
afterAll(() => judge.close());
const screening = (): string[] => ['--policy', POLICY, '--judge', judge.url, '--judge-model', 'j'];
const screen = (out: string, ...more: string[]): Promise<Ran> =>
  temper(['screen', at('rows.jsonl'), ...screening(), '--out', at(out), ...more]);
const json = (ran: Ran): Record<string, unknown> => {
  expect(ran.stdout, ran.stderr).not.toBe('');
  return JSON.parse(ran.stdout) as Record<string, unknown>;
};
const rows = Array.from({ length: 40 }, (_, i) => ({
  id: `r${i}`,
  channels: { analysis: `thought ${i}`, final: i % 4 === 3 ? `call me, ${i}` : `${TEXT} ${i}` },
}));

it('a key: for its owner alone, never written over', async () => {
  expect((await temper(['key', 'new', at('k.pem')])).code).toBe(0);
  expect(statSync(at('k.pem')).mode & 0o777).toBe(0o600);
  const before = readFileSync(at('k.pem'), 'utf8');
  const again = await temper(['key', 'new', at('k.pem'), '--json']);
  expect(again.code).toBe(2);
  expect(json(again)).toMatchObject({ error: { code: 'path_exists' } });
  expect(readFileSync(at('k.pem'), 'utf8')).toBe(before);
  // Nor is a private key left where its public half could not be written.
  writeFileSync(at('half.pub'), 'mine');
  expect((await temper(['key', 'new', at('half')])).code).toBe(2);
  expect(readdirSync(at()).includes('half')).toBe(false);
});

it('a batch: a record for each row, none of its text; verify, show, prove, check', async () => {
  writeFileSync(at('rows.jsonl'), rows.map((r) => `${JSON.stringify(r)}\n`).join(''));
  const ran = await screen('v.jsonl', '--log', at('log'), '--log-key', at('k.pem'));
  expect(ran.code, ran.stderr).toBe(10);
  const verified = await temper(['log', 'verify', at('log'), '--key', at('k.pem.pub'), '--closed', '--json']);
  expect(verified.code).toBe(0);
  expect(json(verified)).toMatchObject({ ok: true, records: 42, trust: 'given' });
  const all = readdirSync(at('log'), { recursive: true, withFileTypes: true })
    .filter((f) => f.isFile())
    .map((f) => readFileSync(join(f.parentPath, f.name), 'utf8'))
    .join('');
  for (const word of [TEXT, 'thought', 'call me', 'PRIVATE KEY']) expect(all).not.toContain(word);
  // No content's plain digest either: it could be guessed.
  for (const line of readFileSync(at('v.jsonl'), 'utf8').split('\n').slice(0, -1)) {
    const { digests } = JSON.parse(line) as { digests: { content: string; policy: string } };
    expect(all).not.toContain(digests.content);
    expect(all).toContain(digests.policy);
  }

  const shown = await temper(['log', 'show', at('log'), '--kind', 'verdict', '--last', '100', '--json']);
  const records = shown.stdout
    .trim()
    .split('\n')
    .map((l) => JSON.parse(l) as { receipt: string; record: { outcome: string; subject: { row: number } } });
  expect(records).toHaveLength(40);
  expect(records.filter((r) => r.record.outcome === 'block')).toHaveLength(10);
  expect(records.map((r) => r.record.subject.row).sort((a, b) => a - b)).toEqual(rows.map((_, i) => i + 1));
  const { receipt, record } = records.find((r) => r.record.subject.row === 3) as (typeof records)[number];
  expect(record).toMatchObject({
    action: 'report',
    outcome: 'allow',
    verdicts: [{ channel: 'analysis' }, { channel: 'final' }],
  });

  const key = ['--key', at('k.pem.pub')];
  expect((await temper(['log', 'prove', at('log'), receipt, '--out', at('p.json')])).code).toBe(0);
  const held = await temper(['log', 'check', at('p.json'), ...key, '--receipt', receipt, '--json']);
  expect(json(held)).toMatchObject({ kind: 'record', receipt });
  // Somebody else's key, another receipt, a proof that was changed.
  await temper(['key', 'new', at('other.pem')]);
  expect((await temper(['log', 'check', at('p.json'), '--key', at('other.pem.pub')])).code).toBe(40);
  const other = records.find((r) => r.receipt !== receipt)?.receipt ?? '';
  expect((await temper(['log', 'check', at('p.json'), ...key, '--receipt', other])).code).toBe(40);
  const proof = readFileSync(at('p.json'), 'utf8');
  const forged = [
    proof.replace('\\"outcome\\":\\"allow\\"', '\\"outcome\\":\\"block\\"'),
    proof.replace(/"path":\["(.)/, (_, c: string) => `"path":["${c === '0' ? '1' : '0'}`),
    proof.replace(/\\n42\\n/, '\\n43\\n'),
    proof.replace(
      /"receipt":"([0-9a-f]{16})\.0\.(\d+)/,
      (_, log: string, i: string) => `"receipt":"${log}.0.${Number(i) + 1}`,
    ),
  ];
  for (const text of forged) {
    expect(text).not.toBe(proof);
    writeFileSync(at('f.json'), text);
    expect((await temper(['log', 'check', at('f.json'), ...key])).code, text).toBe(40);
  }

  // What it is about: for who has the text, and a proof that opens this record alone.
  writeFileSync(at('text'), `${TEXT} 2`);
  expect((await temper(['log', 'check', at('p.json'), ...key, '--text', at('text')])).code).toBe(2);
  await temper(['log', 'prove', at('log'), receipt, '--open', at('k.pem'), '--out', at('open.json')]);
  const about = await temper(['log', 'check', at('open.json'), ...key, '--text', at('text'), '--json']);
  expect(json(about)).toMatchObject({ matches: ['final'] });
  writeFileSync(at('text'), `${TEXT} 4`);
  expect((await temper(['log', 'check', at('open.json'), ...key, '--text', at('text')])).code).toBe(40);
});

it('checkpoints that are kept: what was cut off since is missed, and that it goes on is proven', async () => {
  expect((await temper(['log', 'checkpoint', at('log'), '--out', at('since')])).code).toBe(0);
  writeFileSync(
    at('rows.jsonl'),
    rows
      .slice(0, 5)
      .map((r) => `${JSON.stringify(r)}\n`)
      .join(''),
  );
  await screen('v2.jsonl', '--log', at('log'), '--log-key', at('k.pem'));
  const key = ['--key', at('k.pem.pub')];
  expect((await temper(['log', 'verify', at('log'), ...key, '--since', at('since')])).code).toBe(0);
  await temper(['log', 'prove', at('log'), '--since', at('since'), '--out', at('grown.json')]);
  expect(json(await temper(['log', 'check', at('grown.json'), ...key, '--json']))).toMatchObject({
    kind: 'growth',
    size: 49,
  });
  await temper(['log', 'checkpoint', at('log'), '--out', at('later')]);
  // Back to where it was: by itself it looks whole.
  const file = at('log', '0000', '000000000000.jsonl');
  const text = readFileSync(file, 'utf8');
  const lines = text.split('\n');
  const closed = lines.findIndex((l) => l.includes('"kind":"close"')) + 2;
  writeFileSync(file, `${lines.slice(0, closed).join('\n')}\n`);
  expect((await temper(['log', 'verify', at('log'), ...key])).code).toBe(0);
  const cut = await temper(['log', 'verify', at('log'), ...key, '--since', at('later')]);
  expect(cut.code).toBe(40);
  expect(cut.stderr).toContain('its end was cut off');
  writeFileSync(file, text);
});

it('where it cannot be recorded nothing comes of it; a log that was altered is not added to', async () => {
  const log = at('log', '0000', '000000000000.jsonl');
  const text = readFileSync(log, 'utf8');
  writeFileSync(log, text.replace('"outcome":"block"', '"outcome":"allow"'));
  const ran = await screen('v3.jsonl', '--log', at('log'), '--log-key', at('k.pem'), '--json');
  expect(ran.code).toBe(40);
  expect(json(ran)).toMatchObject({ error: { code: 'log_altered' } });
  expect(readdirSync(at()).includes('v3.jsonl')).toBe(false);
  writeFileSync(log, text);
  writeFileSync(at('file'), '');
  expect((await screen('v3.jsonl', '--log', at('file'))).code).toBe(2);
  const bare = await temper(['generate', '--model', 'models/nano', '--log', at('log'), 'hi', '--json']);
  expect(json(bare)).toMatchObject({ error: { code: 'policy_missing' } });
});

it('an answer of generate brings the receipt of its verdicts, whole and in a file', async () => {
  const model = join(packageRoot, 'models', 'nano');
  mkdirSync(at('g'));
  const ask = [
    'generate',
    '--model',
    model,
    '--max-tokens',
    '60',
    '--temperature',
    '0',
    ...screening(),
    '--log',
    at('g', 'log'),
  ];
  const ran = await temper([...ask, 'Please book a table for 4 people on friday at 19:30 for Rossi', '--json']);
  const { receipt } = json(ran) as { receipt: string };
  const shown = await temper(['log', 'show', at('g', 'log'), '--receipt', receipt]);
  expect(json(shown)).toMatchObject({ receipt, kind: 'verdict', record: { action: 'release', subject: { model } } });
  writeFileSync(at('prompts.jsonl'), '{"prompt": "Please book a table for 4 people on friday at 19:30 for Rossi"}\n');
  await temper([...ask, '--prompts', at('prompts.jsonl'), '--out', at('answers.jsonl')]);
  const answer = JSON.parse(readFileSync(at('answers.jsonl'), 'utf8')) as { receipt: string };
  expect((await temper(['log', 'prove', at('g', 'log'), answer.receipt])).code).toBe(0);
  const verified = await temper(['log', 'verify', at('g', 'log')]);
  expect(verified).toMatchObject({ code: 0 });
  expect(verified.stdout).toContain('no key was given');
  expect(ran.stderr).toContain('lies in the log itself');
});
