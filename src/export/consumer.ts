// The real consumer of an export: a Python with peft or transformers computes the same logits in float32, and every one
// is compared with ours.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { ConfigError } from '../base/errors.js';
import { packageRoot } from '../base/machine.js';
import { readFloatFile } from '../lora/tensor-reader.js';
import type { Reloaded } from './format.js';
import { Comparer, type Comparison, logitsOf } from './verify-logits.js';

export interface ConsumerRequest {
  readonly kind: 'peft' | 'transformers';
  /** A Python, by path or by name. */
  readonly python: string;
  readonly format: string;
  readonly dir: string;
  readonly base: string;
}
export interface ConsumerResult extends Omit<Comparison, 'rmsDifference' | 'rmsEffect'> {
  readonly ok: boolean;
  readonly consumer: 'peft' | 'transformers' | 'llama.cpp';
  /** As `peft 0.21.0, transformers 5.18.0, torch 2.13.0`. */
  readonly versions: string;
  /** What the error may be: the largest difference of the largest logit, or `relative` where that is there. */
  readonly tolerance: number;
  readonly relative?: number;
  /**
   * Of llama.cpp, where it rounds inputs and is compared with our model that does so too: how far that moves our
   * answers, and how far its own lie from those without it.
   */
  readonly rounding?: { readonly moves: number; readonly apart: number };
  /** A line about what was compared. */
  readonly note?: string;
}
/** Two orders of summing in f32 over the layers of a model. */
const TOLERANCE = 1e-4;
const FORMATS: Readonly<Record<ConsumerRequest['kind'], readonly string[]>> = {
  peft: ['peft'],
  transformers: ['merged-bf16', 'merged-mxfp4'],
};
const Said = z.object({ versions: z.string() });
const SCRIPT = join(packageRoot, 'scripts', 'consumer_logits.py');
const MAX_SAID = 1 << 20;

/** Runs the script; its last line of stdout. @throws {ConfigError} consumer_failed · the signal's reason */
function python(command: string, jobs: string, signal?: AbortSignal): Promise<string> {
  return new Promise((done, fail) => {
    const child = spawn(command, [SCRIPT, jobs], { stdio: ['ignore', 'pipe', 'pipe'], ...(signal ? { signal } : {}) });
    let out = '',
      err = '';
    child.stdout.on('data', (d: Buffer) => {
      out = (out + d.toString()).slice(-MAX_SAID);
    });
    child.stderr.on('data', (d: Buffer) => {
      err = (err + d.toString()).slice(-MAX_SAID);
    });
    const failed = (what: string): void =>
      fail(
        signal?.aborted
          ? signal.reason
          : new ConfigError(
              'consumer_failed',
              `${command}: ${what}; wanted a Python with torch, transformers and peft`,
              {
                command,
              },
            ),
      );
    child.on('error', (e) => failed(e.message));
    child.on('close', (code) => {
      if (code === 0) done(out.trim().split('\n').at(-1) ?? '');
      else failed(`ended with ${code}: ${err.trim().split('\n').at(-1) ?? ''}`);
    });
  });
}

/** @throws {ConfigError} consumer_failed: it is not there, cannot load the export, or says something else */
export async function askConsumer(
  request: ConsumerRequest,
  exported: Reloaded,
  sequences: readonly Int32Array[],
  signal?: AbortSignal,
): Promise<ConsumerResult> {
  const { kind, format } = request;
  if (!FORMATS[kind].includes(format))
    throw new ConfigError(
      'consumer_failed',
      `--${kind}: loads ${FORMATS[kind].join(' and ')}, this export is ${format}`,
      {
        format,
      },
    );
  const folder = mkdtempSync(join(tmpdir(), 'temper-consumer-'));
  try {
    const jobs = join(folder, 'jobs.json'),
      out = join(folder, 'logits.safetensors');
    const base = kind === 'peft' ? resolve(request.base) : null;
    writeFileSync(
      jobs,
      JSON.stringify([{ dir: resolve(request.dir), base, tokens: sequences.map((s) => [...s]), out }]),
    );
    const { versions } = Said.parse(JSON.parse(await python(request.python, jobs, signal)));
    using file = readFloatFile(out);
    const comparer = new Comparer();
    for (const [i, s] of sequences.entries()) {
      const theirs = file.entries.get(`logits.${i}`)?.read() ?? new Float32Array();
      comparer.add(theirs, logitsOf(exported.model, exported.adapter, s));
    }
    const found = comparer.result();
    const ok = found.maxDifference <= TOLERANCE * found.maxLogit;
    return { ok, consumer: kind, versions, ...found, tolerance: TOLERANCE };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
