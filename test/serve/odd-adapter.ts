// An adapter of the nano model that changes what is answered, by `salt`.
import { join } from 'node:path';
import { packageRoot } from '../../src/base/machine.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { writePeft } from '../../src/lora/peft.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';

export const NANO = join(packageRoot, 'models', 'nano');

export async function oddAdapter(folder: string, salt: number, rank = 2, size = 0.2): Promise<string> {
  const model = openCheckpoint(NANO);
  const adapter = createAdapter(
    model.config,
    adapterSpec(model.config, { rank, alpha: 64, targets: ['attention', 'experts'], rsLora: false, dropout: 0 }),
    { seed: salt },
  );
  adapter.params.write(adapter.params.toFloat32().map((x, i) => x || Math.sin(salt * 1000 + i) * size));
  await writePeft(adapter, folder, { baseModel: 'nano' });
  adapter.close();
  model.close();
  return folder;
}
