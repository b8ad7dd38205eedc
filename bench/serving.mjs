// What the benchmarks of serving share: a model with room for long prompts, adapters that change what is answered.
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** The same weights with positions for 4,096 tokens, where the model has fewer. */
export function longer(model, folder) {
  const config = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8'));
  if (config.max_position_embeddings >= 4096) return model;
  const copy = join(folder, 'model');
  cpSync(model, copy, { recursive: true });
  const rope_scaling = { ...config.rope_scaling, factor: 4096 / config.rope_scaling.original_max_position_embeddings };
  writeFileSync(join(copy, 'config.json'), JSON.stringify({ ...config, max_position_embeddings: 4096, rope_scaling }));
  return copy;
}

/** Adapters of rank 8 on attention and experts. @returns folders by name */
export async function makeAdapters(model, folder, n) {
  const [{ openCheckpoint }, { createAdapter }, { adapterSpec }, { writePeft }] = await Promise.all([
    import('../dist/model/checkpoint.js'),
    import('../dist/lora/adapter.js'),
    import('../dist/lora/spec.js'),
    import('../dist/lora/peft.js'),
  ]);
  const checkpoint = openCheckpoint(model);
  const names = {};
  for (let i = 0; i < n; i++) {
    const spec = adapterSpec(checkpoint.config, {
      rank: 8,
      alpha: 16,
      targets: ['attention', 'experts'],
      rsLora: false,
      dropout: 0,
    });
    const adapter = createAdapter(checkpoint.config, spec, { seed: i });
    adapter.params.write(adapter.params.toFloat32().map((x, j) => x || Math.sin(i + j) * 0.01));
    names[`a${i}`] = join(folder, `a${i}`);
    await writePeft(adapter, names[`a${i}`], { baseModel: 'base' });
    adapter.close();
  }
  checkpoint.close();
  return names;
}
