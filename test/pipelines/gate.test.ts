// Training, gate and export in pipelines: the pieces run here as they run there, on a few steps of nano.

import { spawn } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { parseDocument } from 'yaml';
import { packageRoot } from '../../src/base/machine.js';

const root = mkdtempSync(join(tmpdir(), 'temper-gate-pipelines-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
// biome-ignore lint/suspicious/noExplicitAny: manifests are checked as what they are, data
type Yaml = any;
function document(name: string): Yaml {
  const doc = parseDocument(readFileSync(join(packageRoot, name), 'utf8'), { uniqueKeys: true });
  expect([...doc.errors, ...doc.warnings], name).toEqual([]);
  return doc.toJS() as Yaml;
}
const action = document('pipelines/gate/action.yml'),
  gitlab = document('pipelines/gitlab-gate.yml');
/** One test of form, without a judge. */
const suite = (maxTokens: number): string => `name: form
version: "1"
sampling: { temperature: 0, maxTokens: ${maxTokens}, effort: medium }
decision: { minPrompts: 30, resamples: 1000 }
tests:
  - name: form
    kind: format
    prompts: form.jsonl
    scorer: format
    metrics: [{ name: form.truncated, direction: lower, margin: 0.2, cap: 0.2 }]
`;
beforeAll(() => {
  mkdirSync(join(root, 'node_modules', '.bin'), { recursive: true });
  symlinkSync(packageRoot, join(root, 'node_modules', 'temper-oss'));
  const bin = join(root, 'node_modules', '.bin', 'temper');
  writeFileSync(bin, `#!/bin/sh\nexec "${process.execPath}" "${join(packageRoot, 'dist', 'cli', 'main.js')}" "$@"\n`);
  chmodSync(bin, 0o755);
  const rows = readFileSync(join(packageRoot, 'datasets', 'tickets', 'train.jsonl'), 'utf8').split('\n');
  writeFileSync(join(root, 'rows.jsonl'), `${rows.slice(0, 4).join('\n')}\n`);
  writeFileSync(
    join(root, 'recipe.yaml'),
    `model: { base: ${join(packageRoot, 'models', 'nano')} }
adapter: { rank: 2, alpha: 4, targets: [attention] }
data: { train: rows.jsonl }
train: { steps: 2, rowsPerStep: 2, lr: 1.0e-6, precision: f32 }
device: cpu
`,
  );
  cpSync(join(packageRoot, 'gates', 'nano', 'prompts', 'form.jsonl'), join(root, 'form.jsonl'));
  writeFileSync(join(root, 'suite.yaml'), suite(128));
  writeFileSync(join(root, 'short.yaml'), suite(4));
});
/** @param variables all there are, beside what finds programs */
function bash(
  script: string,
  variables: Readonly<Record<string, string>>,
): Promise<{ code: number | null; output: string }> {
  const env = { PATH: process.env.PATH, HOME: root, ...variables };
  const child = spawn('bash', ['-c', script], { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
  return new Promise((resolve) => {
    child.on('close', (code) => resolve({ code, output }));
  });
}

it('the action gives every input to its step as a variable, and none as text of a script', () => {
  const [step] = action.runs.steps;
  expect(action.runs.using).toBe('composite');
  const used = Object.values<string>(step.env).map((v) => /^\$\{\{ inputs\.([\w-]+) \}\}$/.exec(v)?.[1]);
  expect(used.sort()).toEqual(Object.keys(action.inputs).sort());
  expect(step.run).not.toContain('${{');
});

it('trains, gates and exports on GitHub: a summary, outputs, the exit code', async () => {
  const files = { GITHUB_OUTPUT: join(root, 'out.txt'), GITHUB_STEP_SUMMARY: join(root, 'step.md') };
  const ran = await bash(action.runs.steps[0].run, {
    ...files,
    GATE_COMMAND: 'node_modules/.bin/temper',
    GATE_RECIPE: 'recipe.yaml',
    GATE_SUITE: 'suite.yaml',
    GATE_RUN: 'runs/one',
    GATE_EXPORT: 'release',
    TEMPER_JUDGE_API_KEY: '',
    GITHUB_ACTION_PATH: join(packageRoot, 'pipelines', 'gate'),
  });
  expect(ran.code, ran.output).toBe(0);
  expect(readFileSync(files.GITHUB_OUTPUT, 'utf8')).toBe('exit-code=0\nreport=runs/one/gate\nfolder=release\n');
  expect(readFileSync(files.GITHUB_STEP_SUMMARY, 'utf8')).toContain('Release gate: PASS');
  const { gate } = JSON.parse(readFileSync(join(root, 'release', 'temper.json'), 'utf8')) as {
    gate: { status: string };
  };
  expect(gate.status).toBe('passed');
  expect(existsSync(join(root, 'release', 'gate', 'report.html'))).toBe(true);
  expect(readFileSync(join(root, 'runs/one/gate/outcomes.jsonl'), 'utf8')).not.toContain('"asked"');
});

it('what did not pass fails the job of GitLab, which leaves its report and no export', async () => {
  cpSync(join(root, 'runs', 'one'), join(root, 'runs', 'gated'), { recursive: true });
  rmSync(join(root, 'runs', 'gated', 'gate'), { recursive: true });
  const ran = await bash(gitlab['temper-gate'].script.join('\n').replace(' all', ' gate'), {
    ...gitlab.variables,
    GATE_SUITE: 'short.yaml',
    GATE_JUDGE: '',
    GATE_EXPORT: 'none',
  });
  expect(ran.code, ran.output).toBe(10);
  expect(existsSync(join(root, 'none'))).toBe(false);
  for (const path of [gitlab['temper-gate'].artifacts.reports.junit, 'runs/gated/gate/report.html'])
    expect(existsSync(join(root, path)), path).toBe(true);
  for (const file of [gitlab.variables.GATE_RECIPE, gitlab.variables.GATE_SUITE])
    expect(existsSync(join(root, file)), file).toBe(true);
  const refused = await bash('node_modules/.bin/temper export runs/gated --out none', {});
  expect(refused.code, refused.output).toBe(10);
});
