// An adapter as llama.cpp loads it beside a model: pairs named for the matrices they are added to. The file has one
// alpha, and a pair's scale is alpha/rank; where the pairs' scales do not agree with that, they are multiplied into B
// and the file has no alpha, which llama.cpp takes for a scale of 1.
import type { PeftFile } from '../../lora/peft-file.js';
import type { PeftPair } from '../../lora/peft-slots.js';
import { isExpertTarget, loraScale, matrixShape } from '../../lora/spec.js';
import { ARCHITECTURE, blk, TENSOR_OF } from './model.js';
import { everySecondRow } from './repack.js';
import { f32, type Metadata, text, u32, type Value } from './types.js';
import { type GgufTensor, type WriteGgufOptions, type Written, writeGguf } from './writer.js';

/** alpha, if one stands for every pair's scale; null: none does. */
export function commonAlpha({ pairs, spec }: Pick<PeftFile, 'pairs' | 'spec'>): number | null {
  const [first, ...others] = pairs.map((p) => Math.fround(loraScale(p, spec.rsLora) * p.rank));
  // llama.cpp takes an alpha of 0 for none.
  return first !== undefined && first !== 0 && others.every((a) => a === first) ? first : null;
}

const asBytes = (a: Float32Array): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);

/** @param by what B is multiplied with */
function tensorsOf({ config }: PeftFile, pair: PeftPair, by: number): GgufTensor[] {
  const { layer, target, rank } = pair,
    { inputs, outputs } = matrixShape(config, target),
    experts = isExpertTarget(target) ? [config.num_local_experts] : [];
  const scaledB = (): Uint8Array => {
    const { B } = pair.read();
    return asBytes(by === 1 ? B : B.map((b) => b * by));
  };
  const one = (matrix: keyof typeof TENSOR_OF, rows: number, b: () => Uint8Array): GgufTensor[] => {
    const name = blk(layer, `${TENSOR_OF[matrix]}.weight`);
    return [
      { name: `${name}.lora_a`, type: 'F32', ne: [inputs, rank, ...experts], data: () => [asBytes(pair.read().A)] },
      { name: `${name}.lora_b`, type: 'F32', ne: [rank, rows, ...experts], data: () => [b()] },
    ];
  };
  if (target !== 'gateUp') return one(target, outputs, scaledB);
  // Rows of gate and up alternate; both read the same A.
  return [
    ...one('gate', outputs / 2, () => everySecondRow(scaledB(), rank * 4, 0)),
    ...one('up', outputs / 2, () => everySecondRow(scaledB(), rank * 4, 1)),
  ];
}

function keysOf(name: string, alpha: number | null): Metadata {
  return new Map<string, Value>([
    ['general.architecture', text(ARCHITECTURE)],
    ['general.type', text('adapter')],
    ['general.name', text(name)],
    ['general.file_type', u32(0)],
    ['adapter.type', text('lora')],
    ...(alpha === null ? [] : [['adapter.lora.alpha', f32(alpha)] as const]),
  ]);
}

/** Writes the adapter as one file. @throws as writeGguf · {CheckpointError} not_finite */
export async function writeAdapterGguf(
  path: string,
  adapter: PeftFile,
  name: string,
  options: WriteGgufOptions = {},
): Promise<Written> {
  const alpha = commonAlpha(adapter),
    { rsLora } = adapter.spec;
  return await writeGguf(
    path,
    keysOf(name, alpha),
    adapter.pairs.flatMap((p) => tensorsOf(adapter, p, alpha === null ? loraScale(p, rsLora) : 1)),
    options,
  );
}

/** Bytes of the file, without its header. */
export const adapterBytes = ({ config, pairs }: PeftFile): number =>
  pairs.reduce((sum, { target, rank }) => {
    const { inputs, outputs } = matrixShape(config, target),
      experts = isExpertTarget(target) ? config.num_local_experts : 1;
    return sum + 4 * rank * experts * (inputs * (target === 'gateUp' ? 2 : 1) + outputs);
  }, 0);
