// The pieces for pipelines: each runs here as it runs there, with the variables that its scheduler sets, in a folder
// where temper-oss is installed; only the services themselves are not here.
import { execFileSync, spawn } from 'node:child_process';
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
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseAllDocuments, parseDocument } from 'yaml';
import { packageRoot } from '../../src/base/machine.js';
import { createProgram } from '../../src/cli/main.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { program } from '../deploy/files.js';
import { completion, type JudgeServer, nonceOf, startJudgeServer } from '../safeguard/judge-server.js';

const root = mkdtempSync(join(tmpdir(), 'temper-pipelines-'));
const read = (name: string): string => readFileSync(join(packageRoot, name), 'utf8');
// biome-ignore lint/suspicious/noExplicitAny: manifests are checked as what they are, data
type Yaml = any;
const documents = (name: string): Yaml[] =>
  parseAllDocuments(read(name), { uniqueKeys: true }).map((doc) => {
    expect([...doc.errors, ...doc.warnings], name).toEqual([]);
    return doc.toJS() as Yaml;
  });

let judge: JudgeServer;
beforeAll(async () => {
  judge = await startJudgeServer((request, response) => {
    const text = request.body.messages[1]?.content ?? '';
    const rule = text.includes('call me') ? 'C1' : null;
    completion(response, { content: renderVerdict({ rule, nonce: nonceOf(request) }) });
  });
});
afterAll(async () => {
  await judge.close();
  rmSync(root, { recursive: true, force: true });
});

/** A folder as a job finds it: the package installed, rows and a policy checked out. */
function checkout(name: string): string {
  const folder = join(root, name);
  mkdirSync(join(folder, 'node_modules', '.bin'), { recursive: true });
  symlinkSync(packageRoot, join(folder, 'node_modules', 'temper-oss'));
  const bin = join(folder, 'node_modules', '.bin', 'temper');
  writeFileSync(bin, `#!/bin/sh\nexec "${process.execPath}" "${join(packageRoot, 'dist', 'cli', 'main.js')}" "$@"\n`);
  chmodSync(bin, 0o755);
  cpSync(join(packageRoot, 'policies', 'contact', 'policy.md'), join(folder, 'policies', 'contact', 'policy.md'));
  const rows = Array.from({ length: 5 }, (_, i) => ({ id: `r${i}`, text: i === 3 ? 'call me' : `fine ${i}` }));
  writeFileSync(join(folder, 'answers.jsonl'), rows.map((r) => `${JSON.stringify(r)}\n`).join(''));
  return folder;
}
interface Ran {
  readonly code: number | null;
  readonly output: string;
}
/** @param variables all there are, beside what finds programs */
function bash(script: string, cwd: string, variables: Readonly<Record<string, string>>): Promise<Ran> {
  const env = { PATH: process.env.PATH, HOME: cwd, SCREEN_JUDGE: judge.url, SCREEN_JUDGE_MODEL: 'm', ...variables };
  const child = spawn('bash', ['-c', script], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
  return new Promise((resolve) => {
    child.on('close', (code) => resolve({ code, output }));
  });
}
const timeless = (file: string): string => readFileSync(file, 'utf8').replaceAll(/"latencyMs":\d+/g, '');
const SETTINGS = {
  SCREEN_COMMAND: 'node_modules/.bin/temper',
  SCREEN_INPUT: 'answers.jsonl',
  SCREEN_POLICY: 'policies/contact/policy.md',
};
/** What a run of all leaves in its folder. */
function reported(folder: string): void {
  const files = ['verdicts.jsonl', 'junit.xml', 'verdicts.sarif', 'code-quality.json', 'verdicts.csv', 'report.html'];
  for (const file of files) expect(existsSync(join(folder, file)), file).toBe(true);
  expect(readFileSync(join(folder, 'junit.xml'), 'utf8')).toContain('tests="5" failures="1"');
  expect(readFileSync(join(folder, 'junit.xml'), 'utf8')).toContain('file="answers.jsonl" line="4"');
}

describe('action.yml', () => {
  const [action] = documents('action.yml') as [Yaml];
  const [step] = action.runs.steps;
  it('gives every input to its step as a variable, and none as text of a script', () => {
    expect(action.runs.using).toBe('composite');
    const used = Object.values<string>(step.env).map((v) => /^\$\{\{ inputs\.([\w-]+) \}\}$/.exec(v)?.[1]);
    expect(used.sort()).toEqual(Object.keys(action.inputs).sort());
    expect(step.run).not.toContain('${{');
    const outputs = [...read('pipelines/screen.sh').matchAll(/"([\w-]+)=\$/g)].map((m) => m[1]);
    for (const name of Object.keys(action.outputs)) expect(outputs).toContain(name);
  });
  it('runs: reports, annotations, a summary, outputs, the exit code', async () => {
    const cwd = checkout('github');
    const files = { GITHUB_OUTPUT: join(cwd, 'out.txt'), GITHUB_STEP_SUMMARY: join(cwd, 'step.md') };
    const ran = await bash(step.run, cwd, {
      ...SETTINGS,
      ...files,
      SCREEN_MODE: 'whole',
      SCREEN_OUT: 'screening',
      SCREEN_FAIL_ON: 'contact/C1\n\n',
      SCREEN_SHARD: '',
      SCREEN_ARGS: '',
      SCREEN_VERSION: '',
      TEMPER_JUDGE_API_KEY: '',
      GITHUB_ACTIONS: 'true',
      GITHUB_ACTION_PATH: packageRoot,
    });
    expect(ran.output).toMatch(/^::error file=answers\.jsonl,line=4,title=contact\/C1::Row r3/m);
    expect(ran.code, ran.output).toBe(10);
    reported(join(cwd, 'screening'));
    expect(readFileSync(files.GITHUB_OUTPUT, 'utf8')).toBe('exit-code=10\nfolder=screening\n');
    expect(readFileSync(files.GITHUB_STEP_SUMMARY, 'utf8')).toContain('## Screening');
  });
});

describe('shards', () => {
  const [gitlab] = documents('pipelines/gitlab.yml') as [Yaml];
  const [screening, report] = documents('pipelines/kubernetes.yaml') as [Yaml, Yaml];
  const container = (job: Yaml): Yaml => job.spec.template.spec.containers[0];
  const kubernetes = (job: Yaml): string =>
    container(job).command.join(' ').replace('/opt/temper', 'bash node_modules/temper-oss');
  const ways: readonly (readonly [string, string, (i: number) => Record<string, string>, string])[] = [
    [
      'GitLab',
      gitlab['temper-screen'].script.join('\n'),
      (i) => ({ CI_NODE_INDEX: `${i + 1}`, CI_NODE_TOTAL: '2', GITLAB_CI: 'true' }),
      gitlab['temper-report'].script.join('\n'),
    ],
    [
      'Kubernetes',
      kubernetes(screening),
      (i) => ({ JOB_COMPLETION_INDEX: `${i}`, JOB_COMPLETIONS: '2' }),
      kubernetes(report),
    ],
    [
      'Slurm',
      `bash "${join(packageRoot, 'pipelines', 'slurm.sbatch')}"`,
      (i) => ({
        SLURM_ARRAY_TASK_ID: `${i + 1}`,
        SLURM_ARRAY_TASK_MIN: '1',
        SLURM_ARRAY_TASK_MAX: '2',
        SLURM_ARRAY_TASK_COUNT: '2',
      }),
      `SCREEN_STEP=merge bash "${join(packageRoot, 'pipelines', 'slurm.sbatch')}"`,
    ],
  ];
  it.each(ways)(
    '%s: the parts of two tasks, joined',
    async (name, task, variables, merge) => {
      const cwd = checkout(name);
      const settings = name === 'Slurm' ? {} : SETTINGS;
      for (const i of [0, 1]) {
        const ran = await bash(task, cwd, { ...settings, ...variables(i) });
        expect(ran.code, ran.output).toBe(0);
        expect(existsSync(join(cwd, 'screening', `part-${i + 1}.jsonl`)), ran.output).toBe(true);
      }
      const joined = await bash(merge, cwd, { ...settings, ...variables(0) });
      expect(joined.code, joined.output).toBe(10);
      reported(join(cwd, 'screening'));
      const whole = await bash('bash node_modules/temper-oss/pipelines/screen.sh whole', cwd, {
        ...SETTINGS,
        SCREEN_OUT: 'whole',
      });
      expect(whole.code, whole.output).toBe(10);
      expect(timeless(join(cwd, 'screening', 'verdicts.jsonl'))).toBe(timeless(join(cwd, 'whole', 'verdicts.jsonl')));
    },
    180_000,
  );
  it('a task without a number, a setting that is missing, a mode that is none: no exit code 0', async () => {
    const cwd = checkout('faults');
    const script = 'bash node_modules/temper-oss/pipelines/screen.sh';
    expect(await bash(`${script} shard`, cwd, SETTINGS)).toMatchObject({
      code: 10, // nothing to join: not the task of an array
      output: expect.stringContaining('verdicts in') as string,
    });
    const { SCREEN_POLICY: _, ...without } = SETTINGS;
    const none = await bash(`${script} whole`, cwd, without);
    expect(none.code).not.toBe(0);
    expect(none.output).toContain('no policy');
    expect((await bash(`${script} frob`, cwd, SETTINGS)).code).toBe(2);
    expect((await bash(`${script} merge`, cwd, { ...SETTINGS, SCREEN_OUT: 'nothing' })).code).toBe(2);
    const half = await bash(`${script} shard`, cwd, { ...SETTINGS, JOB_COMPLETION_INDEX: '0' });
    expect(half.output).toContain('JOB_COMPLETIONS not set');
    expect(half.code).toBe(2);
  });
  it('Kubernetes: as many tasks as completions; nobody has more rights than he needs', () => {
    const { completions, completionMode, parallelism } = screening.spec;
    const counted = container(screening).env.find((e: Yaml) => e.name === 'JOB_COMPLETIONS').value;
    expect([completionMode, Number(counted), parallelism]).toEqual(['Indexed', completions, completions]);
    for (const job of [screening, report]) {
      const { securityContext, automountServiceAccountToken } = job.spec.template.spec;
      expect(securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 1000 });
      expect(automountServiceAccountToken).toBe(false);
      expect(container(job).securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
      expect(container(job).image).toBe(`temper:${(JSON.parse(read('package.json')) as { version: string }).version}`);
    }
    expect(read('deploy/docker/Dockerfile')).toMatch(/cp -r [^\n]*\bpipelines\b/);
  });
  it('Slurm: the number of the array is what its comment says; GitLab: the version is this one', () => {
    expect(read('pipelines/slurm.sbatch')).toContain('#SBATCH --array=1-8');
    expect(gitlab.variables.SCREEN_VERSION).toBe((JSON.parse(read('package.json')) as { version: string }).version);
    for (const job of ['temper-screen', 'temper-report']) expect(gitlab[job].extends).toBe('.temper');
    expect(gitlab['temper-report'].needs).toEqual(['temper-screen']);
  });
});

it('the options that the shell gives are there', async () => {
  const all = await createProgram();
  const screen = all.commands.find((c) => c.name() === 'screen');
  const merge = screen?.commands.find((c) => c.name() === 'merge');
  const known = [...(screen?.options ?? []), ...(merge?.options ?? [])].map((o) => o.long);
  const used = [...read('pipelines/screen.sh').matchAll(/(?:^|[\s(])(--[a-z][a-z-]+)\b(?! of)/gm)]
    .map((m) => m[1] as string)
    .filter((o) => !o.startsWith('--yes'));
  expect(used.length).toBeGreaterThan(10);
  for (const option of used) expect(known, option).toContain(option);
});

describe('as those who read them do', () => {
  it.skipIf(program('yamllint') === null)('yamllint', () => {
    const rules = JSON.stringify({
      extends: 'default',
      rules: {
        'document-start': 'disable',
        'line-length': { max: 120 },
        braces: { 'max-spaces-inside': 1 },
        comments: { 'min-spaces-from-content': 1 },
      },
    });
    const files = ['action.yml', 'pipelines/gitlab.yml', 'pipelines/kubernetes.yaml'];
    expect(execFileSync('yamllint', ['--strict', '-d', rules, ...files], { cwd: packageRoot, encoding: 'utf8' })).toBe(
      '',
    );
  });
  it('bash reads the scripts', () => {
    for (const name of ['screen.sh', 'action.sh', 'slurm.sbatch'])
      execFileSync('bash', ['-n', join(packageRoot, 'pipelines', name)]);
    expect(parseDocument(read('action.yml')).errors).toEqual([]);
  });
});
