// Runs one command line: `temper` in this process (quick, from source), `temperProcess` as users do (compiled code in
// dist/).
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { run } from '../../src/cli/main.js';

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

let turn: Promise<unknown> = Promise.resolve();
/** Captures stdout and stderr; calls take turns. */
export function temper(
  args: readonly string[],
  options: { readonly env?: Readonly<Record<string, string>> } = {},
): Promise<Ran> {
  const mine = turn.then(async () => {
    const out = { stdout: '', stderr: '' };
    const restore = (['stdout', 'stderr'] as const).map((name) => {
      const stream = process[name];
      const write = stream.write;
      stream.write = ((text: string | Uint8Array) => {
        out[name] += Buffer.from(text as string).toString();
        return true;
      }) as typeof write;
      return () => {
        stream.write = write;
      };
    });
    const before = { ...process.env };
    Object.assign(process.env, options.env);
    try {
      return { code: await run(args), ...out };
    } finally {
      for (const r of restore) r();
      process.env = before;
      process.exitCode = undefined;
    }
  });
  turn = mine.catch(() => {});
  return mine;
}

export function temperProcess(
  args: readonly string[],
  options: { readonly input?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join('dist', 'cli', 'main.js'), ...args], {
      env: { ...process.env, ...options.env },
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
    child.stdin.end(options.input ?? '');
  });
}
