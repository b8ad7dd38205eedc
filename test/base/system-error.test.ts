// What the operating system refuses is one line with a next step and a code of ours, on whatever is read or written.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConfigError, TemperError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { asReadError, asTypedError, asWriteError } from '../../src/base/system-error.js';
import { temper } from '../cli/run.js';

const NANO = join(packageRoot, 'models', 'nano');
const POLICY = join(packageRoot, 'policies', 'contact', 'policy.md');
const JUDGE = join(packageRoot, 'models', 'nano-judge');

describe.each([
  'ENOENT',
  'EISDIR',
  'ENOTDIR',
  'EACCES',
  'EPERM',
  'ELOOP',
  'ENAMETOOLONG',
  'EMFILE',
  'ENFILE',
  'ENOSPC',
  'EDQUOT',
  'EFBIG',
  'EROFS',
  'EIO',
  'ESTALE',
  'ENXIO',
  'EBUSY',
  'EINVAL',
  'ENOMEM',
])('%s', (code) => {
  const system = (): Error =>
    Object.assign(new Error(`${code}: some words, open 'f'`), { code, syscall: 'open', path: 'f', errno: -1 });
  it.each([
    ['reading', (e: Error) => asReadError(e, 'f', 'give another', (m) => new ConfigError('policy_unreadable', m))],
    ['writing', (e: Error) => asWriteError(e, 'f')],
    ['anything else', (e: Error) => asTypedError(e)],
  ] as const)('%s', (_, typed) => {
    const made = typed(system());
    expect(made).toBeInstanceOf(TemperError);
    const { message, exitCode } = made as TemperError;
    expect(exitCode).toBe(2);
    expect(message).toMatch(/^f: /);
    expect(message).toMatch(/; \S/); // and what to do
    expect(message).toContain(code);
    expect(message).not.toContain('some words');
    expect(typed(made as TemperError)).toBe(made);
  });
});

let dir: string;
let before: string;
beforeAll(() => {
  before = process.cwd();
  dir = mkdtempSync(join(tmpdir(), 'errno-'));
  process.chdir(dir);
  writeFileSync('file', 'x');
  mkdirSync('folder');
  symlinkSync('circle', 'circle');
  writeFileSync('tokens.json', '{"tokens": [[1]]}');
  writeFileSync('rows.jsonl', '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n');
  writeFileSync('texts.jsonl', '{"text": "a"}\n');
  writeFileSync('prompts.jsonl', '{"prompt": "a"}\n');
  writeFileSync(
    'r.yaml',
    `model: { base: ${NANO} }\ndata: { train: [{ path: rows.jsonl }] }\ntrain: { steps: 1, ` +
      'rowsPerStep: 1, lr: 1e-3 }\n',
  );
});
afterAll(() => {
  process.chdir(before);
  rmSync(dir, { recursive: true, force: true });
});

/** Paths that cannot be, by what the system says of them. */
const PATHS = {
  'not there': 'none/x',
  'below a file': 'file/x',
  'a circle of links': 'circle',
  'a circle on the way': 'circle/x',
  'a name too long': 'n'.repeat(300),
  'a path too long': `${'d/'.repeat(3000)}x`,
  'a NUL byte': 'a\0b',
};
type Line = (path: string) => string[];
const readings: Readonly<Record<string, Line>> = {
  'generate --model': (p) => ['generate', '--model', p, 'hi'],
  'generate --adapter': (p) => ['generate', '--model', NANO, '--adapter', p, 'hi'],
  'generate --prompts': (p) => ['generate', '--model', NANO, '--prompts', p, '--out', 'o'],
  'generate --policy': (p) => ['generate', '--model', NANO, '--policy', p, '--judge', JUDGE, 'hi'],
  'generate --judge': (p) => ['generate', '--model', NANO, '--policy', POLICY, '--judge', p, 'hi'],
  'chat --model': (p) => ['chat', '--model', p],
  'bench --model': (p) => ['bench', '--model', p],
  'logits --tokens': (p) => ['logits', '--model', NANO, '--tokens', p, '--out', 'o'],
  'logits --model': (p) => ['logits', '--model', p, '--tokens', 'tokens.json', '--out', 'o'],
  'model inspect': (p) => ['model', 'inspect', p],
  'plan --model': (p) => ['plan', '--model', p],
  'plan recipe': (p) => ['plan', p],
  'plan --shape': (p) => ['plan', 'r.yaml', '--shape', p, '--no-time'],
  'train recipe': (p) => ['train', p],
  'train base': (p) => ['train', 'r.yaml', '--set', `model.base=${JSON.stringify(p)}`],
  'train rows': (p) => ['train', 'r.yaml', '--set', `data.train.0.path=${JSON.stringify(p)}`],
  'train from': (p) => ['train', 'r.yaml', '--set', `adapter.from=${JSON.stringify(p)}`],
  'train --resume': (p) => ['train', 'r.yaml', '--resume', '--out', p],
  eval: (p) => ['eval', p],
  'eval --adapter': (p) => ['eval', 'r.yaml', '--set', 'data.eval=[{path: rows.jsonl}]', '--adapter', p],
  export: (p) => ['export', p, '--out', 'o'],
  verify: (p) => ['verify', p],
  'data check': (p) => ['data', 'check', p, '--tokenizer', NANO],
  'data check --tokenizer': (p) => ['data', 'check', 'rows.jsonl', '--tokenizer', p],
  'screen rows': (p) => ['screen', p, '--policy', POLICY, '--judge', JUDGE, '--out', 'o'],
  'screen --policy': (p) => ['screen', 'texts.jsonl', '--policy', p, '--judge', JUDGE, '--out', 'o'],
  'screen --judge': (p) => ['screen', 'texts.jsonl', '--policy', POLICY, '--judge', p, '--out', 'o'],
};
const writings: Readonly<Record<string, Line>> = {
  'logits --out': (p) => ['logits', '--model', NANO, '--tokens', 'tokens.json', '--out', p],
  'generate --out': (p) => ['generate', '--model', NANO, '--max-tokens', '2', '--prompts', 'prompts.jsonl', '--out', p],
  'screen --out': (p) => ['screen', 'texts.jsonl', '--policy', POLICY, '--judge', JUDGE, '--out', p],
  'screen --junit': (p) => ['screen', 'texts.jsonl', '--policy', POLICY, '--judge', JUDGE, '--out', 'o', '--junit', p],
  'screen --sarif': (p) => ['screen', 'texts.jsonl', '--policy', POLICY, '--judge', JUDGE, '--out', 'o', '--sarif', p],
  'train --out': (p) => ['train', 'r.yaml', '--out', p],
  'model init': (p) => ['model', 'init', p, '--preset', 'nano'],
  'demo --out': (p) => ['demo', '--out', p],
};

async function oneLine(args: readonly string[]): Promise<string> {
  const { code, stderr } = await temper(args);
  const lines = stderr
    .trim()
    .split('\n')
    .filter((l) => !/^(?:device|note): |^(?:screen|generate|pull) [0-9]/.test(l));
  expect([2, 40], stderr).toContain(code);
  expect(lines, stderr).toHaveLength(1);
  const [line = ''] = lines;
  expect(line).toMatch(/^temper: /);
  expect(line).not.toMatch(/unexpected error|no such file or directory, |\bat .*\.js/);
  expect(line).toMatch(/[;:,?] \S/);
  return line;
}

describe('a path that cannot be read', () => {
  // Each line with a path that is not there and with the next one of the others.
  const others = [...Object.values(PATHS), 'folder', 'file', '/dev/null'].slice(1);
  it.each(Object.entries(readings).map(([name, line], i) => [name, line, others[i % others.length] ?? ''] as const))(
    '%s',
    async (_, line, other) => {
      for (const path of ['none/x', other]) await oneLine(line(path));
    },
    180_000,
  );
});
describe('a path that cannot be written', () => {
  const { 'not there': missing, ...never } = PATHS;
  it.each(Object.entries(writings).map(([name, line], i) => [name, line, i] as const))(
    '%s',
    async (name, line, i) => {
      const folder = ['train --out', 'model init', 'demo --out'].includes(name);
      const paths = [...Object.values(never), '/proc/none/x', '/sys/kernel/none'];
      for (const path of [folder ? 'file' : 'folder', folder ? 'file/x' : missing, paths[i % paths.length] ?? ''])
        await oneLine(line(path));
    },
    180_000,
  );
  it('a full disk', async () => {
    for (const name of ['logits --out', 'generate --out', 'screen --out', 'screen --junit'])
      expect(await oneLine(writings[name]?.('/dev/full') ?? [])).toMatch(/no room left while writing \(ENOSPC\)/);
  });
});

it('no descriptors left: every door says so', () => {
  const script = `
    const { openSync, closeSync } = await import('node:fs');
    const from = (name) => import(${JSON.stringify(`${packageRoot}/dist/`)} + name);
    const inputs = await from('base/inputs.js'), files = await from('base/files.js');
    const digest = await from('base/digest.js');
    const { openSafetensors } = await from('native/safetensors.js');
    const { readConfig } = await from('model/config.js'), { openCheckpoint } = await from('model/checkpoint.js');
    const { readPeft } = await from('lora/peft.js'), { loadRecipe } = await from('recipe/load.js');
    const { loadPolicy } = await from('safeguard/policy.js'), { sourceOf } = await from('data/sources/index.js');
    const { readTokenizerJson } = await from('harmony/tokenizer-file.js');
    const { readRows } = await from('safeguard/batch/read.js');
    const { digestFolder } = await from('base/folder-digest.js'), { reportError } = await from('cli/main.js');
    const { asTypedError } = await from('base/system-error.js'), { readRun } = await from('runs/run-folder.js');
    const m = ${JSON.stringify(NANO)}, w = m + '/model.safetensors', config = readConfig(m);
    const doors = {
      readInput: () => inputs.readInput(m + '/config.json', 'config'), readHead: () => inputs.readHead(w, 4),
      openInput: () => inputs.openInput(w), sha256File: () => digest.sha256File(w),
      writeFileAtomic: () => files.writeFileAtomic('e', 'x'),
      writeFolderAtomic: () => files.writeFolderAtomic('d', () => {}),
      openSafetensors: () => openSafetensors(w), readConfig: () => readConfig(m), 
      openCheckpoint: () => openCheckpoint(m),
      readPeft: () => readPeft(m, config), loadRecipe: () => loadRecipe('r.yaml'),
      loadPolicy: () => loadPolicy(${JSON.stringify(POLICY)}),
      readTokenizerJson: () => readTokenizerJson(m), readRows: () => readRows('texts.jsonl'),
      sourceOf: () => sourceOf('rows.jsonl'),
      digestFolder: () => digestFolder(m, ['config.json'], { fresh: true }),
    };
    const held = [];
    try { for (;;) held.push(openSync('/dev/null')); } catch {}
    const out = {};
    for (const [name, door] of Object.entries(doors)) {
      try { await door(); out[name] = 'works'; }
      catch (e) { const t = asTypedError(e); out[name] = t.code + ' ' + t.exitCode; }
    }
    held.forEach((fd) => closeSync(fd));
    console.log(JSON.stringify(out));`;
  const out = execFileSync(
    'bash',
    ['-c', 'ulimit -n 700; exec "$0" --input-type=module -e "$1"', process.execPath, script],
    {
      cwd: dir,
      encoding: 'utf8',
    },
  );
  const doors = JSON.parse(out) as Record<string, string>;
  expect(Object.keys(doors)).toHaveLength(16);
  for (const [name, said] of Object.entries(doors)) expect(`${name} ${said}`).toBe(`${name} open_files_limit 2`);
});
