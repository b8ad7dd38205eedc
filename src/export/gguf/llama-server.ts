// llama.cpp's own server as a program beside us: it loads the file as its users do, and is asked for the
// log-probability of every token after a prompt of token ids. On the CPU, with f32 keys and values. It listens on
// 127.0.0.1 alone.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { ConfigError, TemperError } from '../../base/errors.js';

export interface LlamaRequest {
  /** llama-server, or a folder that has it. */
  readonly program: string;
  readonly model: string;
  /** An adapter beside it. */
  readonly lora?: string;
  /** Tokens of the longest prompt. */
  readonly maxTokens: number;
  readonly vocabSize: number;
  readonly signal?: AbortSignal | undefined;
}
export interface LlamaServer {
  /** What it calls itself. */
  readonly version: string;
  /**
   * @returns natural log-probabilities of all tokens after the prompt; −Infinity where its probability is 0 in f32
   * @throws {ConfigError} consumer_failed: it ended, was silent, or answered something else
   */
  logProbabilities(prompt: readonly number[]): Promise<Float64Array>;
  close(): Promise<void>;
}

const NAME = process.platform === 'win32' ? 'llama-server.exe' : 'llama-server';
/** How long it may take to load a model, and to answer. */
const LOAD_MS = 600_000,
  ANSWER_MS = 120_000,
  POLL_MS = 50,
  /** Until it has ended by itself. */
  GRACE_MS = 2000;
/** Added to a logit: more than all others have. */
const TAKEN = 1e6;
/** Its lowest float stands for a probability of 0. */
const ZERO_BELOW = -1e30;

const failed = (program: string, what: string, cause?: unknown): ConfigError =>
  new ConfigError(
    'consumer_failed',
    `${program}: ${what}; run it by hand on the file to see more, or take another build of llama.cpp`,
    { program },
    cause === undefined ? undefined : { cause },
  );

/** @throws {ConfigError} consumer_failed */
export function llamaProgram(given: string): string {
  const program = existsSync(given) && statSync(given).isDirectory() ? join(given, NAME) : given;
  if (!existsSync(program) || !statSync(program).isFile())
    throw new ConfigError(
      'consumer_failed',
      `${program}: not there; give the path of llama.cpp's ${NAME}, or the folder it is in`,
      { program },
    );
  return program;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address ? address.port : 0;
}

/** What this build says of itself: flags came and changed their form. */
async function helpOf(program: string, signal?: AbortSignal): Promise<string> {
  try {
    const options = { timeout: ANSWER_MS, maxBuffer: 2 ** 24, ...(signal ? { signal } : {}) };
    const { stdout, stderr } = await promisify(execFile)(program, ['--help'], options);
    return stdout + stderr;
  } catch (e) {
    signal?.throwIfAborted();
    throw failed(program, `cannot be run with --help (${(e as Error).message.split('\n')[0] ?? ''})`, e);
  }
}

function argumentsOf(wanted: LlamaRequest, help: string, port: number): string[] {
  const optional = (flag: string, ...values: string[]): string[] => (help.includes(flag) ? [flag, ...values] : []);
  return [
    '--model',
    wanted.model,
    ...(wanted.lora === undefined ? [] : ['--lora', wanted.lora]),
    '--host',
    '127.0.0.1',
    '--port',
    String(port),
    // Room for the token that it adds.
    '--ctx-size',
    String(Math.ceil((wanted.maxTokens + 2) / 256) * 256),
    '--parallel',
    '1',
    ...optional('--cache-type-k', 'f32'),
    ...optional('--cache-type-v', 'f32'),
    // Older builds have the switch alone, off by default.
    ...(/--flash-attn[^\n]*(?:on\|off|FA)/.test(help) ? ['--flash-attn', 'off'] : []),
    ...optional('--n-gpu-layers', '0'),
    ...optional('--swa-full'),
    ...optional('--no-warmup'),
    ...optional('--no-webui'),
  ];
}

interface Answer {
  readonly completion_probabilities?: readonly {
    readonly top_logprobs?: readonly { readonly id?: unknown; readonly logprob?: unknown }[];
  }[];
}
/** @throws {ConfigError} consumer_failed */
function readAnswer(answer: Answer, vocabSize: number, program: string): Float64Array {
  const given = answer.completion_probabilities?.[0]?.top_logprobs;
  if (!Array.isArray(given)) throw failed(program, 'its answer has no completion_probabilities[0].top_logprobs');
  const out = new Float64Array(vocabSize).fill(Number.NaN);
  for (const { id, logprob } of given) {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= vocabSize)
      throw failed(program, `answers for token ${String(id)}, the model has 0…${vocabSize - 1}`);
    if (typeof logprob !== 'number' || Number.isNaN(logprob) || logprob > 1e-3)
      throw failed(program, `says that the log-probability of token ${id} is ${String(logprob)}`);
    if (!Number.isNaN(out[id])) throw failed(program, `answers for token ${id} twice`);
    out[id] = logprob < ZERO_BELOW ? -Infinity : logprob;
  }
  const missing = out.findIndex(Number.isNaN);
  if (missing >= 0) throw failed(program, `answers for ${given.length} tokens of ${vocabSize}; none for ${missing}`);
  return out;
}

/** Its last words, for messages. */
class Output {
  #text = '';
  add(piece: Buffer): void {
    this.#text = (this.#text + piece.toString('utf8')).slice(-4000);
  }
  /** What looks like the reason. */
  last(): string {
    const lines = this.#text.split('\n').filter((l) => l.trim() !== '');
    return (lines.findLast((l) => /error|fail|unknown|invalid/i.test(l)) ?? lines.at(-1) ?? 'nothing').slice(0, 300);
  }
}

/**
 * One request on a connection of its own: one that was kept may be closed by the server in the very moment it is used.
 */
function exchange(
  port: number,
  path: string,
  body: unknown,
  signal: AbortSignal,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const post = body === undefined ? {} : { method: 'POST', headers: { 'content-type': 'application/json' } };
    const r = request({ host: '127.0.0.1', port, path, agent: false, signal, ...post }, (response) => {
      const pieces: Buffer[] = [];
      response.on('data', (piece: Buffer) => pieces.push(piece));
      response.on('error', reject);
      response.on('aborted', () => reject(new Error('the connection broke')));
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(pieces).toString('utf8') }),
      );
    });
    r.on('error', reject);
    r.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGTERM');
  const late = setTimeout(() => child.kill('SIGKILL'), GRACE_MS);
  await gone;
  clearTimeout(late);
}

/**
 * Starts it and waits until it has the model.
 * @throws {ConfigError} consumer_failed · the signal's reason
 */
export async function startLlamaServer(wanted: LlamaRequest): Promise<LlamaServer> {
  const program = llamaProgram(wanted.program),
    { signal, vocabSize } = wanted;
  const help = await helpOf(program, signal);
  const port = await freePort(),
    output = new Output();
  const child = spawn(program, argumentsOf(wanted, help, port), { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.on('data', (piece: Buffer) => output.add(piece));
  child.stderr.on('data', (piece: Buffer) => output.add(piece));
  const dead = new AbortController();
  child.once('error', (e) => dead.abort(failed(program, `cannot be started (${e.message})`, e)));
  child.once('exit', (code, by) =>
    dead.abort(failed(program, `ended with ${by ?? `code ${code}`}, its last words: ${output.last()}`)),
  );
  /** One request, as long as it lives. */
  const ask = async (path: string, body: unknown, ms: number): Promise<{ status: number; value: unknown }> => {
    const signals = [dead.signal, AbortSignal.timeout(ms), ...(signal ? [signal] : [])];
    try {
      const { status, text } = await exchange(port, path, body, AbortSignal.any(signals));
      return { status, value: JSON.parse(text) as unknown };
    } catch (e) {
      signal?.throwIfAborted();
      dead.signal.throwIfAborted();
      if (e instanceof SyntaxError) throw failed(program, `answered ${path} with no JSON`, e);
      if (signals[1]?.aborted) throw failed(program, `did not answer ${path} within ${ms / 1000} s`, e);
      throw e;
    }
  };
  /** One request of a server that is ready. */
  const surely = (path: string, body: unknown): Promise<{ status: number; value: unknown }> =>
    ask(path, body, ANSWER_MS).catch(async (e: unknown) => {
      if (e instanceof TemperError || signal?.aborted) throw e;
      // A connection that breaks is seen before the end of the process that held it.
      await Promise.race([new Promise((resolve) => dead.signal.addEventListener('abort', resolve)), sleep(GRACE_MS)]);
      dead.signal.throwIfAborted();
      throw failed(program, 'closed the connection', e);
    });
  let version = 'unknown',
    plain = 0;
  try {
    await untilReady(ask, program, dead.signal, signal);
    plain = await plainToken(surely, program);
    const { value } = await surely('/props', undefined);
    version = String((value as { readonly build_info?: unknown } | null)?.build_info ?? version).slice(0, 80);
  } catch (e) {
    await end(child);
    throw e;
  }
  return {
    version,
    async logProbabilities(prompt) {
      // It says nothing of a token that is half a character, and ends at others: so the one it takes is given. What it
      // says are the probabilities before that.
      const logit_bias = [[plain, TAKEN]];
      const body = {
        prompt,
        n_predict: 1,
        n_probs: vocabSize,
        temperature: 0,
        logit_bias,
        cache_prompt: true,
        seed: 0,
      };
      const { status, value } = await surely('/completion', body);
      if (status !== 200 || typeof value !== 'object' || value === null)
        throw failed(program, `answered with status ${status}: ${JSON.stringify(value).slice(0, 200)}`);
      return readAnswer(value as Answer, vocabSize, program);
    },
    close: () => end(child),
  };
}

/** A token that is a character by itself. @throws {ConfigError} consumer_failed */
async function plainToken(
  ask: (path: string, body: unknown) => Promise<{ status: number; value: unknown }>,
  program: string,
): Promise<number> {
  const { status, value } = await ask('/tokenize', { content: 'a' });
  const [token] = (value as { readonly tokens?: readonly unknown[] } | null)?.tokens ?? [];
  if (status !== 200 || typeof token !== 'number' || !Number.isInteger(token) || token < 0)
    throw failed(program, `answered /tokenize with status ${status}: ${JSON.stringify(value).slice(0, 200)}`);
  return token;
}

async function untilReady(
  ask: (path: string, body: unknown, ms: number) => Promise<{ status: number }>,
  program: string,
  dead: AbortSignal,
  signal?: AbortSignal,
): Promise<void> {
  const deadline = Date.now() + LOAD_MS;
  for (;;) {
    signal?.throwIfAborted();
    dead.throwIfAborted();
    if (Date.now() > deadline) throw failed(program, `did not load the model within ${LOAD_MS / 1000} s`);
    const status = await ask('/health', undefined, ANSWER_MS).then(
      (r) => r.status,
      (e: unknown) => {
        if (e instanceof TemperError || signal?.aborted) throw e;
        return 0; // not listening yet
      },
    );
    if (status === 200) return;
    await sleep(POLL_MS);
  }
}
