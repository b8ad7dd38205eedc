// generate and screen as commands: a random checkpoint, a judge behind a socket.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { tinyCheckpoint } from '../infer/tiny.js';
import { type Answer, completion, nonceOf, startJudgeServer } from '../safeguard/judge-server.js';
import { temper, temperProcess } from './run.js';

const { dir, root } = await tinyCheckpoint();
const policy = ['--policy', 'policies/contact/policy.md'];
const withServer = async (
  answer: Answer,
  work: (judge: string[], requests: readonly { readonly headers: Record<string, unknown> }[]) => Promise<void>,
): Promise<void> => {
  const server = await startJudgeServer(answer);
  try {
    await work(['--judge', server.url, '--judge-model', 'm'], server.requests as never);
  } finally {
    await server.close();
  }
};
const verdict =
  (rule: string | null): Answer =>
  (request, response) =>
    completion(response, { content: renderVerdict({ rule, nonce: nonceOf(request) }), reasoning: 'because' });
const generate = (...more: string[]): string[] => [
  'generate',
  '--model',
  dir,
  '--seed',
  '1',
  '--max-tokens',
  '12',
  ...more,
  'Book a table',
];

describe('temper generate', () => {
  it('is repeatable by its seed', async () => {
    const [a, b] = await Promise.all([temper(generate('--json')), temper(generate('--json'))]);
    // A random model reaches no final message: there is no answer.
    expect(a.code).toBe(20);
    expect(a.stderr).toContain('temper: no answer: cut off before a final message');
    expect(JSON.parse(a.stdout).channels).toEqual(JSON.parse(b.stdout).channels);
    expect(JSON.parse(a.stdout)).toMatchObject({ finish: 'length', answered: false, usage: { completionTokens: 12 } });
  });
  it('reads the prompt from stdin, refuses an empty one', async () => {
    const args = generate('--json').slice(0, -1);
    const given = await temperProcess([...args, '-'], { input: 'Book a table\n' });
    expect(JSON.parse(given.stdout).channels).toEqual(JSON.parse((await temper(generate('--json'))).stdout).channels);
    expect(await temperProcess([...args.filter((a) => a !== '--json'), '-'], { input: ' \n' })).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringContaining('prompt is empty') as string,
    });
  });
  it('releases, withholds and reports by exit code', async () => {
    const text = Object.values(
      JSON.parse((await temper(generate('--json'))).stdout).channels as Record<string, string>,
    ).join('');
    const piece = text.slice(0, 8);
    await withServer(verdict(null), async (judge) => {
      const ran = await temper(generate(...policy, ...judge, '--json'));
      expect(ran.code).toBe(20);
      expect(Object.values(JSON.parse(ran.stdout).channels as object).join('')).toBe(text);
    });
    await withServer(verdict('C1'), async (judge) => {
      const ran = await temper(generate(...policy, ...judge));
      expect(ran.code).toBe(10);
      expect(ran.stdout + ran.stderr).not.toContain(piece);
      expect(ran.stdout + ran.stderr).toContain('withheld: policy contact, rule C1');
    });
    await withServer(
      (_, response) => {
        response.writeHead(500, { 'content-type': 'text/plain' }).end('the model is gone');
      },
      async (judge) => {
        const ran = await temper(generate(...policy, ...judge, '--json'));
        expect(ran.code).toBe(30);
        expect(ran.stdout + ran.stderr).not.toContain(JSON.stringify(piece).slice(1, -1));
        expect(JSON.parse(ran.stdout)).toMatchObject({
          outcome: 'unjudged',
          verdicts: [{ outcome: 'unjudged', cause: 'http_status' }],
        });
        expect(ran.stderr).toMatch(/^temper: not judged \(http_status\): judge .*500 3 times: the model is gone$/m);
      },
    );
  });
});

describe('temper chat', () => {
  const chat = (...more: string[]): string[] => ['chat', '--model', dir, '--max-tokens', '6', '--seed', '2', ...more];
  it('takes turns and commands from a pipe, and ends with it', async () => {
    const ran = await temperProcess(chat(), {
      input: 'hello\n/effort low\n/effort lots\n/frob\nagain\n/quit\nnever\n',
    });
    expect(ran.code).toBe(0);
    expect(ran.stderr).toContain('temper: /effort: wanted low, medium or high');
    expect(ran.stderr).toContain('temper: /frob: unknown command');
    expect(ran.stderr.match(/^other: /gm)).toHaveLength(2);
  });
  it('leaves a withheld turn out of the conversation', async () => {
    await withServer(verdict('C1'), async (judge) => {
      const ran = await temperProcess(chat(...policy, ...judge), { input: 'hello\n' });
      expect(ran.stderr).toContain('[other withheld: policy contact, rule C1]');
      expect(ran.stderr).toContain('this turn is left out');
    });
  });
});

it('Ctrl-C stops generate', async () => {
  const child = spawn(process.execPath, [
    'dist/cli/main.js',
    'generate',
    '--model',
    dir,
    '--max-tokens',
    '4000',
    '--temperature',
    '0',
    'x',
  ]);
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    if (!stderr) child.kill('SIGINT');
    stderr += text;
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  expect(code).toBe(130);
  expect(stderr).toContain('temper: interrupted');
});

describe('temper screen', () => {
  const rows = '{"id":"a","text":"x","expect":"C1"}\n{"id":"b","text":"y","expect":null}\n';
  it('writes verdicts and exits 10, 0 or 30', async () => {
    const input = join(root, 'rows.jsonl');
    const out = join(root, 'v.jsonl');
    await writeFile(input, rows);
    const args = (judge: string[]): string[] => ['screen', input, ...policy, ...judge, '--out', out, '--json'];
    await withServer(verdict('C1'), async (judge, requests) => {
      const ran = await temper([...args(judge), '--junit', join(root, 'v.xml'), '--sarif', join(root, 'v.sarif')], {
        env: { TEMPER_JUDGE_API_KEY: 'key-1', OPENAI_API_KEY: 'other' },
      });
      expect(ran.code).toBe(10);
      expect(JSON.parse(ran.stdout)).toMatchObject({
        rows: 2,
        block: 2,
        agreement: { all: { truePositives: 1, falsePositives: 1 } },
        policies: [{ name: 'contact', rules: ['C1', 'C2', 'C3', 'C4'] }],
      });
      expect(requests[0]?.headers.authorization).toBe('Bearer key-1');
      const verdicts = (await readFile(out, 'utf8'))
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      expect(await readFile(join(root, 'v.xml'), 'utf8')).toContain('tests="2" failures="2"');
      expect(
        (JSON.parse(await readFile(join(root, 'v.sarif'), 'utf8')) as { runs: { results: unknown[] }[] }).runs[0]
          ?.results,
      ).toHaveLength(2);
      expect(verdicts).toMatchObject([
        { id: 'a', outcome: 'block', rule: 'C1', rationale: 'because' },
        { id: 'b', outcome: 'block' },
      ]);
    });
    await withServer(verdict(null), async (judge) => {
      expect((await temper(args(judge))).code).toBe(0);
    });
    await withServer(
      (_, r) => completion(r, { content: '' }),
      async (judge) => {
        expect((await temper(args(judge))).code).toBe(30);
      },
    );
  });
  it('refuses a --fail-on by which nothing would ever fail, where parts are joined too', async () => {
    const [input, part] = [join(root, 'rows.jsonl'), join(root, 'part.jsonl')];
    await writeFile(input, rows);
    await withServer(verdict('C1'), async (judge) => {
      const args = ['screen', input, ...policy, ...judge, '--shard', '1/1', '--out', part, '--fail-on'];
      const wrong = await temper([...args, 'detector/secrets/gihub-token']);
      expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('has no rule gihub-token')]);
      expect((await temper([...args, 'block'])).code).toBe(10);
    });
    const merge = ['screen', 'merge', part, '--out', join(root, 'merged.jsonl'), '--fail-on'];
    for (const rule of ['contcat', 'contcat/C1', 'detector/secrts']) {
      const ran = await temper([...merge, rule]);
      expect([ran.code, ran.stderr]).toEqual([2, expect.stringContaining('there is no policy')]);
    }
    expect((await temper([...merge, 'contact/C1'])).code).toBe(10);
  });
  it('shows one detail for each cause', async () => {
    const input = join(root, 'rows.jsonl');
    await writeFile(input, rows);
    await withServer(
      (_, r) => r.writeHead(401, { 'content-type': 'application/json' }).end('{"error":{"message":"bad key"}}'),
      async (judge) => {
        const ran = await temper(['screen', input, ...policy, ...judge, '--out', join(root, 'cause.jsonl')]);
        expect(ran.code).toBe(30);
        expect(ran.stdout).toMatch(/unjudged by http_status: 2, first: judge .* answered 401: bad key; check TEMPER_/);
        expect(ran.stdout).toContain('2 of the verdicts expected are missing');
      },
    );
  });
  it('a wrong key ends a long file early: one line, exit 30, no output', async () => {
    const input = join(root, 'many.jsonl');
    const out = join(root, 'many.out');
    await writeFile(input, rows.repeat(200));
    await withServer(
      (_, r) => r.writeHead(401, { 'content-type': 'application/json' }).end('{"error":{"message":"bad key"}}'),
      async (judge, requests) => {
        const ran = await temper(['screen', input, ...policy, ...judge, '--out', out]);
        expect(ran).toMatchObject({ code: 30, stdout: '' });
        expect(ran.stderr).toMatch(
          /temper: screen: judge .* answered 401: bad key; check TEMPER_JUDGE_API_KEY; stopped/,
        );
        expect(requests.length).toBeLessThan(30);
        expect(existsSync(out)).toBe(false);
      },
    );
  });
  it('a key with a line break: exit 2, and not a piece of it anywhere', async () => {
    const input = join(root, 'rows.jsonl');
    await writeFile(input, rows);
    await withServer(verdict(null), async (judge, requests) => {
      const ran = await temper(['screen', input, ...policy, ...judge, '--out', join(root, 'key.jsonl')], {
        env: { TEMPER_JUDGE_API_KEY: 'sk-aaaa1111\nsk-bbbb2222' },
      });
      expect(ran.code).toBe(2);
      expect(ran.stderr).toMatch(/TEMPER_JUDGE_API_KEY/);
      expect(ran.stdout + ran.stderr).not.toMatch(/sk-|aaaa|bbbb/);
      expect(requests).toHaveLength(0);
      expect(existsSync(join(root, 'key.jsonl'))).toBe(false);
    });
  });
  it('a local checkpoint that never learnt to judge: everything is unjudged', async () => {
    const input = join(root, 'rows.jsonl');
    await writeFile(input, rows);
    const ran = await temper([
      'screen',
      input,
      ...policy,
      '--judge',
      dir,
      '--judge-max-tokens',
      '16',
      '--out',
      join(root, 'local.jsonl'),
      '--json',
    ]);
    expect(ran.code).toBe(30);
    expect(JSON.parse(ran.stdout)).toMatchObject({ allow: 0, block: 0, unjudged: 2 });
    const small = await temper([
      'screen',
      input,
      ...policy,
      '--judge',
      dir,
      '--judge-context',
      '64',
      '--out',
      join(root, 'local.jsonl'),
      '--json',
    ]);
    expect(small.code).toBe(30);
    expect(JSON.parse(small.stdout)).toMatchObject({ unjudged: 2, causes: { judge_error: 2 } });
  });
  it('a bad row: exit code 2, its line, no output', async () => {
    const input = join(root, 'bad.jsonl');
    const out = join(root, 'bad.out');
    await writeFile(input, `${rows}{"txt":"z"}\n`);
    await withServer(verdict(null), async (judge) => {
      const ran = await temper(['screen', input, ...policy, ...judge, '--out', out]);
      expect(ran).toMatchObject({ code: 2, stdout: '' });
      expect(ran.stderr).toMatch(/^temper: judge .*NOBODY CHECKED.*\ntemper: .*bad\.jsonl:3: [^\n]*\n$/);
      expect(existsSync(out)).toBe(false);
    });
  });
});
