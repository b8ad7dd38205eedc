// What the user may say about the machine, in the environment and as options: a wrong value is a usage error that names
// it.
import { spawnSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { createProgram } from '../../src/cli/main.js';
import { commands } from '../../src/cli/registry.js';
import { tinyCheckpoint } from '../infer/tiny.js';
import { temper, temperProcess } from './run.js';

// The instruction set and the thread count are read once per process, so each of these runs in its own.
describe('environment', () => {
  const model = tinyCheckpoint();
  beforeAll(async () => {
    copyFileSync(join('models', 'nano', 'tokenizer.json'), join((await model).dir, 'tokenizer.json'));
  });
  it.each([
    [{ TEMPER_ISA: 'foo' }, 'bad_isa', /TEMPER_ISA.*'foo'.*portable, avx2/],
    [{ TEMPER_ISA: process.arch === 'arm64' ? 'avx2' : 'neon' }, 'bad_isa', /TEMPER_ISA.*no '(neon|avx2)'/],
    [{ TEMPER_THREADS: 'garbage' }, 'bad_argument', /TEMPER_THREADS.*'garbage'.*1 to 1024/],
    [{ TEMPER_THREADS: '0' }, 'bad_argument', /TEMPER_THREADS.*'0'/],
    [{ TEMPER_THREADS: '10000' }, 'bad_argument', /TEMPER_THREADS.*'10000'/],
    [{ TEMPER_THREADS: '2x' }, 'bad_argument', /TEMPER_THREADS.*'2x'/],
    [{ TEMPER_THREADS: '99999999999999999999' }, 'bad_argument', /TEMPER_THREADS.*'99999999999999999999'/],
  ])('%j temper doctor', async (env, code, message) => {
    const ran = await temperProcess(['doctor', '--json'], { env: env as Record<string, string> });
    expect(JSON.parse(ran.stdout)).toMatchObject({
      error: { code, message: expect.stringMatching(message) as string },
    });
    expect(ran.stderr).toBe('');
    expect(ran.code).toBe(2);
  });
  it.each([
    [{ TEMPER_ISA: 'foo' }, /^temper: TEMPER_ISA: [^\n]*\n$/],
    [{ TEMPER_THREADS: 'garbage' }, /^temper: TEMPER_THREADS: [^\n]*\n$/],
  ])("%j reaches the user from the engine's thread", async (env, line) => {
    const { dir } = await model;
    const ran = await temperProcess(['generate', '--model', dir, '--max-tokens', '1', 'hi'], {
      env: env as unknown as Record<string, string>,
    });
    expect(ran).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(line) as string });
  });

  const infoUnder = (isa: string): { isa?: string; code?: string } => {
    const program =
      'try { process.stdout.write(JSON.stringify({ isa: ' +
      `require(${JSON.stringify(join(packageRoot, 'build', 'temper.node'))}).cpuInfo().isa })) ` +
      '} catch (e) { process.stdout.write(JSON.stringify({ code: e.code })) }';
    return JSON.parse(
      spawnSync(process.execPath, ['-e', program], { encoding: 'utf8', env: { ...process.env, TEMPER_ISA: isa } })
        .stdout,
    ) as { isa?: string; code?: string };
  };
  it('every instruction set is either what runs or refused; portable always runs', () => {
    for (const isa of ['avx2', 'avx512', 'avx512bf16', 'amx', 'neon', 'neonbf16'])
      expect([{ isa }, { code: 'bad_isa' }]).toContainEqual(infoUnder(isa));
    expect(infoUnder('portable')).toEqual({ isa: 'portable' });
    expect(infoUnder('')).toEqual({ isa: expect.any(String) as string });
  });
});

describe('--threads', () => {
  it('0, 10000 and what is no whole number are usage errors of every command that takes it', async () => {
    const program = await createProgram();
    let checked = 0;
    for (const { name } of commands) {
      const command = name
        .split(' ')
        .reduce(
          (at, word) => at.commands.find((c) => c.name() === word) ?? expect.fail(`${name} is not registered`),
          program,
        );
      if (!command.options.some((o) => o.long === '--threads')) continue;
      checked++;
      for (const value of ['0', '10000', '-1', '1.5', 'x', '']) {
        const { code, stdout, stderr } = await temper([...name.split(' '), `--threads=${value}`]);
        expect(stderr, `${name} ${value}`).toMatch(
          /^temper: option '--threads <n>' argument '.*' is invalid\. wanted an integer from 1 to 1024[^\n]*\n$/,
        );
        expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      }
    }
    expect(checked).toBeGreaterThanOrEqual(6);
  });
});
