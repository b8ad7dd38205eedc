// JSON that models, adapters, exports and runs bring: what one reader takes and another does not is refused by name.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { dataFiles } from '../../src/data/files.js';
import { mergedConfig } from '../../src/export/checkpoint-files.js';
import type { ExportSource } from '../../src/export/format.js';
import { readTokenizerJson } from '../../src/harmony/tokenizer-file.js';
import { readManifest } from '../../src/hub/manifest.js';
import { MANIFEST_FILE } from '../../src/hub/names.js';
import { readPeft } from '../../src/lora/peft.js';
import { checkPeftConfig } from '../../src/lora/peft-config.js';
import { readProvenance } from '../../src/lora/provenance.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { parseConfig, readConfig } from '../../src/model/config.js';
import { endTokens } from '../../src/model/generation-config.js';
import { readTokens } from '../../src/model/logits-file.js';
import { openSafetensors, writeSafetensors } from '../../src/native/safetensors.js';
import { readRun } from '../../src/runs/run-folder.js';

const NANO = join(packageRoot, 'models', 'nano');
const CONFIG = readFileSync(join(NANO, 'config.json'), 'utf8');
const config = parseConfig(JSON.parse(CONFIG));
let dir: string;
const at = (name: string): string => join(dir, name);
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'json-file-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));
const failure = (run: () => unknown): { code: string; message: string; exitCode: number } => {
  try {
    run();
  } catch (e) {
    return e as { code: string; message: string; exitCode: number };
  }
  return { code: 'works', message: '', exitCode: 0 };
};

const PEFT = '{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}';
const PROVENANCE = '{"version": 1, "run": "x", "digests": {"base": "b"}, "files": {}}';
const RUN = JSON.stringify({
  version: 1,
  status: 'done',
  method: 'sft',
  steps: 1,
  digests: { recipe: '', data: '', base: '', tokenizer: '' },
  machine: { isa: 'x' },
});
const INDEX = '{"metadata": {"total_size": 1}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}';

interface Kind {
  readonly file: string;
  /** A text of it that is read, up to what `reads` says. */
  readonly good: string;
  readonly read: () => unknown;
  /** The error of a text that is no JSON. */
  readonly bad: string;
  /** What becomes of the good text: `works`, or a later error. */
  readonly later?: string;
  readonly unknown: string | null;
}
const kinds: Readonly<Record<string, Kind>> = {
  config: { file: 'config.json', good: CONFIG, read: () => readConfig(dir), bad: 'bad_config', unknown: 'bad_config' },
  index: {
    file: 'model.safetensors.index.json',
    good: INDEX,
    read: () => openCheckpoint(dir),
    bad: 'bad_index',
    later: 'file_missing',
    unknown: 'bad_index',
  },
  generation: {
    file: 'generation_config.json',
    good: '{"eos_token_id": 3}',
    read: () => endTokens(dir, config),
    bad: 'bad_config',
    unknown: 'bad_config',
  },
  tokenizer: {
    file: 'tokenizer.json',
    good: readFileSync(join(NANO, 'tokenizer.json'), 'utf8'),
    read: () => readTokenizerJson(dir),
    bad: 'tokenizer_json',
    unknown: 'tokenizer_unsupported',
  },
  adapter: {
    file: 'adapter_config.json',
    good: PEFT,
    read: () => readPeft(dir, config),
    bad: 'bad_adapter_config',
    later: 'adapter_missing',
    unknown: 'adapter_unsupported',
  },
  provenance: {
    file: 'temper.json',
    good: PROVENANCE,
    read: () => readProvenance(dir),
    bad: 'bad_provenance',
    unknown: 'bad_provenance',
  },
  run: { file: 'run.json', good: RUN, read: () => readRun(dir), bad: 'bad_run', unknown: null },
  pull: {
    file: MANIFEST_FILE,
    good: JSON.stringify({
      version: 1,
      endpoint: 'https://hub',
      kind: 'model',
      name: 'a/b',
      revision: 'main',
      commit: 'c',
      covered: [],
      at: 1,
      files: [],
    }),
    read: () => readManifest(dir),
    bad: 'hub_folder',
    unknown: null,
  },
  saved: {
    file: 'state.json',
    good: '{"_data_files": [{"filename": "data.arrow"}]}',
    read: () => {
      writeFileSync(at('data.arrow'), '');
      return dataFiles(dir);
    },
    bad: 'file_kind',
    unknown: null,
  },
  merged: {
    file: 'config.json',
    good: CONFIG,
    read: () => {
      readConfig(dir);
      return mergedConfig({ base: { dir } } as ExportSource, 'mxfp4');
    },
    bad: 'bad_config',
    unknown: null,
  },
  tokens: {
    file: 'tokens.json',
    good: '{"tokens": [[1, 2]]}',
    read: () => readTokens(at('tokens.json'), 10),
    bad: 'bad_tokens',
    unknown: 'bad_tokens',
  },
};

describe.each(Object.entries(kinds))('%s', (_, { file, good, read, bad, later = 'works', unknown }) => {
  beforeEach(() => {
    if (file !== 'config.json') writeFileSync(at('config.json'), CONFIG);
  });
  const told = (text: string | Uint8Array): ReturnType<typeof failure> => {
    writeFileSync(at(file), text);
    return failure(read);
  };
  it('is read', () => {
    expect(told(good).code).toBe(later);
  });
  it('a key that stands twice is refused by name, wherever it stands and however it is written', () => {
    const first = /"((?:[^"\\]|\\.)+)"\s*:/.exec(good)?.[1] ?? '';
    const escaped = `\\u${first.charCodeAt(0).toString(16).padStart(4, '0')}${first.slice(1)}`;
    for (const key of [first, escaped]) {
      const { code, message } = told(good.trim().replace(/\}$/, `, "${key}": null}`));
      expect(code).toBe(bad);
      expect(message).toContain(file);
      // Of a file of ours nobody asks what is wrong with it.
      if (bad !== 'hub_folder') expect(message).toMatch(new RegExp(`"${first}" is there twice`));
    }
    // Inside the first object that has one within.
    const inner = good.replace(/:\s*\{\s*"((?:[^"\\]|\\.)+)"\s*:/, (all, key: string) => `${all} 1, "${key}":`);
    if (inner !== good)
      expect(told(inner)).toMatchObject({ code: bad, message: expect.stringMatching(/is there twice/) });
  });
  it.each([
    ['no JSON', '{'],
    [
      'no UTF-8',
      Buffer.concat([
        Buffer.from(good.trim().slice(0, -1)),
        Buffer.from(', "x": "'),
        Buffer.of(0xff),
        Buffer.from('"}'),
      ]),
    ],
    ['a byte order mark', `\ufeff${good}`],
    ['too deep', '['.repeat(5000) + ']'.repeat(5000)],
  ] as const)('%s', (_name, text) => {
    expect(told(text)).toMatchObject({ code: bad, message: expect.stringContaining(file) });
  });
  it.runIf(unknown !== null)('a key that nobody knows is refused by name', () => {
    for (const key of ['surprise', '__proto__', 'constructor']) {
      const { code, message } = told(good.trim().replace(/\}$/, `, "${key}": {"x": 1}}`));
      expect(code).toBe(unknown);
      expect(message).toContain(key);
    }
  });
  it('of another type altogether', () => {
    for (const text of ['null', '[]', '7', '"x"', 'true'])
      expect(['bad_adapter_config', bad, 'tokenizer_type']).toContain(told(text).code);
  });
  it('a folder, a link to nothing and a device in its place are named', () => {
    for (const make of [
      () => mkdirSync(at(file)),
      () => symlinkSync('round', at(file)),
      () => symlinkSync('/dev/zero', at(file)),
    ]) {
      rmSync(at(file), { recursive: true, force: true });
      make();
      rmSync(at('round'), { force: true });
      symlinkSync('round', at('round'));
      const { code, message, exitCode } = failure(read);
      rmSync(at(file), { recursive: true, force: true });
      // A link that leads nowhere is no file that is there: some of these files may be absent.
      if (code === 'works' || code === 'file_missing') continue;
      expect([2, 40]).toContain(exitCode);
      expect(message).toContain(dir);
    }
  });
});

describe('the index', () => {
  it.each([
    ['{"weight_map": {"a": "f"}, "metadata": {"quantization": "fp8"}}', /metadata\.quantization/],
    ['{"weight_map": {"a": "f"}, "metadata": {"format": "mlx"}}', /metadata\.format/],
    ['{"weight_map": {"a": "f"}, "metadata": [1]}', /metadata is/],
    ['{"weight_map": {"a": "f"}, "quantization_config": {}}', /quantization_config/],
  ])('%s', (text, said) => {
    writeFileSync(at('config.json'), CONFIG);
    writeFileSync(at('model.safetensors.index.json'), text);
    expect(failure(() => openCheckpoint(dir))).toMatchObject({
      code: 'bad_index',
      message: expect.stringMatching(said),
    });
  });
});

describe('__metadata__ of safetensors', () => {
  const model = (metadata: Readonly<Record<string, string>>): string => {
    cpSync(join(NANO, 'config.json'), at('config.json'));
    using file = openSafetensors(join(NANO, 'model.safetensors'));
    const entries = [...file.tensors].map(([name, e]) => ({
      name,
      dtype: e.dtype,
      shape: e.shape,
      data: file.bytes(name),
    }));
    writeSafetensors(at('model.safetensors'), entries, metadata);
    return dir;
  };
  const opened = (metadata: Readonly<Record<string, string>>): string =>
    failure(() => openCheckpoint(model(metadata)).close()).code;
  it('that describes changes nothing', () => {
    for (const metadata of [{}, { format: 'pt' }, { 'modelspec.title': 'x', ss_steps: '3', total_size: '9' }])
      expect(opened(metadata)).toBe('works');
  });
  it('that may change what the bytes mean is refused by name', () => {
    expect(opened({ _quantization_metadata: '{}' })).toBe('bad_metadata');
    expect(opened({ surprise: '1' })).toBe('bad_metadata');
    expect(opened({ constructor: '1' })).toBe('bad_metadata');
    expect(opened({ format: 'mlx' })).toBe('layout_unsupported');
    expect(opened({ expert_layout: 'swapped' })).toBe('bad_metadata');
  });
});

it('an adapter config is held to what was given, also where a parser would drop a key', () => {
  const value: unknown = JSON.parse('{"peft_type": "LORA", "__proto__": {"r": 4}}');
  expect(failure(() => checkPeftConfig(value, 'f'))).toMatchObject({ code: 'adapter_unsupported' });
});
