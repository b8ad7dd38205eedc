// The model card's snippet runs, for every kind of adapter, with modules in the place of transformers and peft that
// check how they are called. test/golden/train/verify_peft.py loads an export with the real ones.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { createAdapter } from '../../src/lora/adapter.js';
import { writePeft } from '../../src/lora/peft.js';
import { type AdapterChoice, adapterSpec } from '../../src/lora/spec.js';
import { readConfig } from '../../src/model/config.js';
import { goldenRoot } from '../model/golden.js';

const root = mkdtempSync(join(tmpdir(), 'temper-card-'));
afterAll(() => rmSync(root, { recursive: true }));
const config = readConfig(join(goldenRoot, 'odd'));

writeFileSync(
  join(root, 'transformers.py'),
  `class Mxfp4Config:
    def __init__(self, *, dequantize): assert dequantize is True
class AutoModelForCausalLM:
    @staticmethod
    def from_pretrained(name, *, quantization_config=None):
        assert quantization_config is None or isinstance(quantization_config, Mxfp4Config)
        return ("base", name, quantization_config is not None)
`,
);
writeFileSync(
  join(root, 'peft.py'),
  `import json, pathlib
class PeftModel:
    @staticmethod
    def from_pretrained(base, folder):
        assert (pathlib.Path(folder) / "adapter_model.safetensors").exists()
        print(json.dumps({"name": base[1], "dequantized": base[2]}))
`,
);
const hasPython = spawnSync('python3', ['--version']).status === 0;

const cases: readonly { readonly targets: AdapterChoice['targets']; readonly name: string }[] = [
  { targets: ['attention', 'experts'], name: 'gpt-oss-20b' },
  { targets: ['attention'], name: 'openai/gpt-oss-20b' },
  { targets: ['experts'], name: 'a "quoted" \\ name' },
];
it.each(cases)('$targets on $name', async ({ targets, name }) => {
  const dir = mkdtempSync(join(root, 'adapter-'));
  const choice = { rank: 3, alpha: 6, targets, rsLora: false, dropout: 0 };
  await writePeft(createAdapter(config, adapterSpec(config, choice), { seed: 1 }), dir, { baseModel: name });
  const code = /```python\n([\s\S]*?)```/.exec(readFileSync(join(dir, 'README.md'), 'utf8'))?.[1] ?? '';
  const imported = [...code.matchAll(/^from \w+ import (.*)$/gm)].flatMap((m) => (m[1] ?? '').split(', '));
  const used = code.replace(/"(?:\\.|[^"\\])*"/g, '').match(/\b[A-Z]\w+/g) ?? [];
  expect([...new Set(used)].filter((n) => n !== 'True').sort()).toEqual([...imported].sort());
  if (!hasPython) return;
  const ran = spawnSync('python3', ['-c', code], {
    cwd: dir,
    env: { ...process.env, PYTHONPATH: root },
    encoding: 'utf8',
  });
  expect(ran.stderr).toBe('');
  expect(JSON.parse(ran.stdout)).toEqual({ name, dequantized: targets.toString() !== 'attention' });
});
