// Runs one command line as users do, in its own process (compiled code in dist/).
import { spawn } from 'node:child_process';
import { join } from 'node:path';

export interface Ran { readonly code: number | null; readonly stdout: string; readonly stderr: string }
export function temper(args: readonly string[], options: { readonly input?: string; readonly env?: Record<string, string>; readonly onStart?: (pid: number) => void } = {}): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join('dist', 'cli', 'main.js'), ...args], { env: { ...process.env, ...options.env } });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => { stdout += text; });
    child.stderr.setEncoding('utf8').on('data', (text: string) => { stderr += text; });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
    child.stdin.end(options.input ?? '');
    options.onStart?.(child.pid ?? 0);
  });
}
