// An adapter of a GGUF file on a model, for its proof: pairs go back to the checkpoint's matrices as llama.cpp applies
// them, gate and up to the one that holds both.
import { CheckpointError } from '../../base/errors.js';
import type { ModelConfig } from '../../model/config.js';
import type { LayerAdapter, LoraPair, LoraTarget, ModelAdapter } from '../../model/types.js';
import { Scope } from '../../native/tensor.js';
import { TENSOR_OF } from './model.js';
import { GgufFile } from './reader.js';

interface Part {
  readonly layer: number;
  readonly matrix: keyof typeof TENSOR_OF;
  readonly A: Float32Array;
  readonly B: Float32Array;
  readonly rank: number;
  /** Shapes, slowest dimension first. */
  readonly shapeA: readonly number[];
  readonly shapeB: readonly number[];
}

function partsOf(file: GgufFile): Part[] {
  const fail = (what: string): never => {
    throw new CheckpointError('adapter_tensor_unknown', `${file.path}: ${what}; export it again`, { file: file.path });
  };
  const floats = (name: string): Float32Array => {
    if (file.entry(name).type !== 'F32') fail(`tensor ${name} is ${file.entry(name).type}, wanted F32`);
    return new Float32Array(file.bytes(name).buffer);
  };
  const parts: Part[] = [];
  for (const name of file.header.tensors.keys()) {
    const [, layer, tensor, part] = /^blk\.(\d+)\.(\w+)\.weight\.lora_([ab])$/.exec(name) ?? [];
    const matrix = (Object.keys(TENSOR_OF) as (keyof typeof TENSOR_OF)[]).find((m) => TENSOR_OF[m] === tensor);
    if (layer === undefined || !matrix) return fail(`tensor ${JSON.stringify(name)} is of no adapter of gpt-oss`);
    if (part === 'b') continue;
    const b = name.replace(/a$/, 'b');
    const [shapeA, shapeB] = [file.entry(name).ne, file.entry(b).ne].map((ne) => [...ne].reverse());
    if (!shapeA || !shapeB) continue;
    parts.push({
      layer: Number(layer),
      matrix,
      A: floats(name),
      B: floats(b),
      rank: shapeB.at(-1) ?? 0,
      shapeA,
      shapeB,
    });
  }
  if (file.header.tensors.size !== 2 * parts.length) fail('a lora_b is there without its lora_a');
  return parts;
}

/** Rows of gate and up in turn, for each expert. */
function joined(gate: Part, up: Part, path: string): Pick<Part, 'B' | 'shapeB'> {
  const [E = 0, rows = 0, R = 0] = gate.shapeB;
  if (gate.A.some((a, i) => !Object.is(a, up.A[i])) || up.shapeB.join() !== gate.shapeB.join())
    throw new CheckpointError(
      'adapter_tensor_unknown',
      `${path}: layer ${gate.layer}: gate and up read another lora_a each, which gpt-oss's gate_up_proj cannot hold`,
      { file: path },
    );
  const B = new Float32Array(2 * gate.B.length);
  for (let row = 0; row < E * rows; row++) {
    B.set(gate.B.subarray(row * R, (row + 1) * R), 2 * row * R);
    B.set(up.B.subarray(row * R, (row + 1) * R), (2 * row + 1) * R);
  }
  return { B, shapeB: [E, 2 * rows, R] };
}

export interface LoadedAdapter extends Disposable {
  readonly model: ModelAdapter;
}
/** @throws {CheckpointError} adapter_tensor_unknown, tensor_missing, and what GgufFile.open refuses */
export function loadAdapterGguf(path: string, config: ModelConfig): LoadedAdapter {
  using file = GgufFile.open(path);
  const alpha = file.header.metadata.get('adapter.lora.alpha');
  const parts = partsOf(file),
    layers = Array.from({ length: config.num_hidden_layers }, (): { -readonly [T in LoraTarget]?: LoraPair } => ({}));
  const scope = new Scope('adapter');
  try {
    for (const part of parts) {
      if (part.matrix === 'up') continue;
      const up = parts.find((p) => p.layer === part.layer && p.matrix === 'up');
      if (part.matrix === 'gate' && !up)
        throw new CheckpointError(
          'tensor_missing',
          `${path}: layer ${part.layer} has a pair for gate and none for up`,
          {
            file: path,
          },
        );
      const { B, shapeB } = part.matrix === 'gate' && up ? joined(part, up, path) : part;
      const at = layers[part.layer];
      if (!at)
        throw new CheckpointError('no_such_layer', `${path}: has a pair for layer ${part.layer}`, { file: path });
      at[part.matrix === 'gate' ? 'gateUp' : part.matrix] = {
        A: scope.from(part.A, part.shapeA),
        B: scope.from(B, shapeB),
        scale: alpha?.type === 'f32' && alpha.value !== 0 ? alpha.value / part.rank : 1,
        dropout: 0,
        dA: null,
        dB: null,
      };
    }
    return { model: { layers: layers as readonly LayerAdapter[] }, [Symbol.dispose]: () => scope.close() };
  } catch (e) {
    scope.close();
    throw e;
  }
}
