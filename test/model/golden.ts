// Reads what test/golden/model/make_goldens.py wrote, and compares.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ModelConfig } from '../../src/model/config.js';
import type { Batch, LayerAdapter, LoraPair, LoraTarget, ModelAdapter, Targets } from '../../src/model/types.js';
import { openSafetensors, type SafetensorsFile } from '../../src/native/safetensors.js';
import type { Scope, Tensor } from '../../src/native/tensor.js';

export const goldenRoot = join(dirname(fileURLToPath(import.meta.url)), '..', 'golden', 'model');
export interface Inputs {
  readonly sequences: number[][];
  readonly targets: number[][];
  readonly weights: number[];
  readonly lora: { rank: number; alpha: number } | null;
}

export class Golden {
  readonly dir: string;
  readonly inputs: Inputs;
  readonly file: SafetensorsFile;
  /** Names read so far: a test asserts that no expected tensor was left unread. */
  readonly read = new Set<string>();
  constructor(readonly name: string) {
    this.dir = join(goldenRoot, name);
    this.inputs = JSON.parse(readFileSync(join(this.dir, 'inputs.json'), 'utf8')) as Inputs;
    this.file = openSafetensors(join(this.dir, 'expected.safetensors'));
  }
  f32(name: string): Float32Array {
    this.read.add(name);
    const bytes = this.file.bytes(name);
    if (this.file.entry(name).dtype === 'F32')
      return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    const half = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
    const out = new Float32Array(half.length),
      bits = new Uint32Array(out.buffer);
    half.forEach((b, i) => {
      bits[i] = b << 16;
    });
    return out;
  }
  tensor(scope: Scope, name: string): Tensor {
    return scope.from(this.f32(name), this.file.entry(name).shape);
  }
  /** All sequences in one batch, or only `which`. */
  batch(which: readonly number[] = this.inputs.sequences.map((_, i) => i)): Batch {
    return pack(which.map((i) => this.inputs.sequences[i] ?? []));
  }
  targets(): Targets {
    const rows: number[] = [],
      next: number[] = [];
    let at = 0;
    this.inputs.sequences.forEach((tokens, i) => {
      for (const r of this.inputs.targets[i] ?? []) {
        rows.push(at + r);
        next.push(tokens[r + 1] ?? -1);
      }
      at += tokens.length;
    });
    return {
      rows: Int32Array.from(rows),
      targets: Int32Array.from(next),
      weights: Float32Array.from(this.inputs.weights),
    };
  }
}

export function pack(sequences: readonly (readonly number[])[]): Batch {
  const starts = [0];
  for (const s of sequences) starts.push((starts.at(-1) ?? 0) + s.length);
  return {
    tokens: Int32Array.from(sequences.flat()),
    positions: Int32Array.from(sequences.flatMap((s) => s.map((_, i) => i))),
    starts: Int32Array.from(starts),
  };
}

export const TENSOR_OF: Readonly<Record<LoraTarget, string>> = {
  q: 'self_attn.q_proj.weight',
  k: 'self_attn.k_proj.weight',
  v: 'self_attn.v_proj.weight',
  o: 'self_attn.o_proj.weight',
  router: 'mlp.router.weight',
  gateUp: 'mlp.experts.gate_up_proj',
  down: 'mlp.experts.down_proj',
};

/** The golden's LoRA pairs with zeroed gradients; `tensors` lists each gradient with the name it is compared under. */
export function goldenAdapter(
  g: Golden,
  scope: Scope,
  config: ModelConfig,
): { adapter: ModelAdapter; tensors: { name: string; grad: Tensor }[] } {
  const { rank, alpha } = g.inputs.lora ?? { rank: 1, alpha: 1 };
  const tensors: { name: string; grad: Tensor }[] = [];
  const layers = Array.from(
    { length: config.num_hidden_layers },
    (_, i): LayerAdapter =>
      Object.fromEntries(
        Object.entries(TENSOR_OF).map(([target, tensor]) => {
          const name = `model.layers.${i}.${tensor}`;
          const A = g.tensor(scope, `lora.A.${name}`),
            B = g.tensor(scope, `lora.B.${name}`);
          const dA = scope.zeros('f32', A.shape),
            dB = scope.zeros('f32', B.shape);
          tensors.push({ name: `lora.dA.${name}`, grad: dA }, { name: `lora.dB.${name}`, grad: dB });
          return [target, { A, B, scale: alpha / rank, dropout: 0, dA, dB } satisfies LoraPair];
        }),
      ),
  );
  return { adapter: { layers }, tensors };
}

/** max |a − b| over all elements, relative to the largest |b|. Never NaN: a NaN counts as infinite. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let worst = 0,
    top = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs((a[i] ?? NaN) - (b[i] ?? NaN));
    if (!(d <= worst)) worst = Number.isNaN(d) ? Infinity : d;
    top = Math.max(top, Math.abs(b[i] ?? 0));
  }
  return top === 0 ? worst : worst / top;
}
/**
 * Worst |a − b| of all elements, each relative to its own |b|, but at least to a quarter of the row's root mean square:
 * a logit that happens to be near zero is no more exact than its neighbours.
 */
export function elementError(a: ArrayLike<number>, b: Float32Array, width: number): number {
  if (a.length !== b.length) return Infinity;
  let worst = 0;
  for (let row = 0; row < b.length; row += width) {
    const floor = 0.25 * rms(b.subarray(row, row + width), new Float32Array(width));
    for (let i = row; i < row + width; i++) {
      const e = Math.abs((a[i] ?? NaN) - (b[i] ?? NaN)) / Math.max(Math.abs(b[i] ?? NaN), floor);
      if (!(e <= worst)) worst = Number.isNaN(e) ? Infinity : e;
    }
  }
  return worst;
}
export function rms(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += ((a[i] ?? NaN) - (b[i] ?? NaN)) ** 2;
  return Math.sqrt(sum / a.length);
}
