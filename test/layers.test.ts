// Imports and includes point down; siblings do not know each other. The picture is in docs/architecture.md; this test
// reads every arrow.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Folders by height; a folder may reach lower ones and itself. */
const SOURCE_RANK: Readonly<Record<string, number>> = {
  index: 8, // the library's face: what the CLI calls, and never the CLI
  cli: 8,
  serve: 7,
  demo: 7,
  bench: 7,
  compose: 6,
  train: 5,
  evaluate: 5,
  export: 5,
  infer: 5,
  tfjs: 5, // an entry of its own: temper-oss/tfjs
  safeguard: 5,
  gate: 5,
  attest: 5,
  watch: 5,
  'verdict-log': 4,
  runs: 4,
  objectives: 4,
  lora: 3,
  data: 3,
  recipe: 3,
  hub: 2,
  store: 2,
  model: 2,
  harmony: 2,
  report: 2,
  native: 1,
  base: 0,
};
/** The door to native code: what stands behind it is the room's own. */
const PRIVATE: readonly string[] = ['src/native/addon.ts'];
const NATIVE_RANK: Readonly<Record<string, number>> = {
  bench: 6,
  test: 5,
  emulation: 2.5,
  binding: 4,
  plan: 3.5,
  tokenizer: 3,
  cpu: 3,
  cuda: 3,
  gpu: 2.7,
  core: 2,
  include: 1,
};
/** What any maker's backend could compile stands on the words of a kernel and the op table alone. */
const GPU_MAY_INCLUDE: readonly string[] = ['gpu', 'include', 'emulation'];
/** The binding calls ops through the table only. */
const BINDING_MAY_INCLUDE_OF_CPU: readonly string[] = ['cpu/ops.h', 'cpu/host/isa.h', 'cpu/host/machine_limits.h'];

type Files = ReadonlyMap<string, string>; // path with '/', text
interface Arrow {
  readonly from: string;
  readonly to: string;
  readonly line: number;
}

function arrows(path: string, text: string, pattern: RegExp): Arrow[] {
  return [...text.matchAll(pattern)].map((m) => ({
    from: path,
    to: m[1] ?? '',
    line: text.slice(0, m.index).split('\n').length,
  }));
}
const importsOf = (path: string, text: string): Arrow[] => [
  ...arrows(path, text, /^[ \t]*(?:import|export)\b[^'";]*?\bfrom\s*['"]([^'"]+)['"]/gm),
  ...arrows(path, text, /^[ \t]*import\s*['"]([^'"]+)['"]/gm),
  ...arrows(path, text, /\bimport\(\s*['"]([^'"]+)['"]\s*\)/g),
  ...arrows(path, text, /\bnew URL\(\s*['"](\.[^'"]+\.[jt]s)['"]/g),
];
const includesOf = (path: string, text: string): Arrow[] =>
  arrows(path, text, /^[ \t]*#\s*include\s*[<"]([^>"]+)[>"]/gm);

interface Sweep {
  readonly files: number;
  readonly arrows: number;
  readonly violations: readonly string[];
}

function sweepSources(files: Files): Sweep {
  const violations: string[] = [];
  let count = 0;
  const folderOf = (path: string): string => {
    const parts = path.split('/');
    return parts.length === 2 ? 'index' : (parts[1] ?? '');
  };
  for (const [path, text] of files) {
    // Threads are opened by the name of their entry below dist/.
    for (const a of arrows(path, text, /'([a-z]+)\/[a-z-]*worker\.js'/g))
      if (a.to !== folderOf(path)) violations.push(`${path}:${a.line} opens a thread of ${a.to}: another room's`);
    for (const a of importsOf(path, text)) {
      if (!a.to.startsWith('.')) continue;
      count++;
      const target = posix.normalize(posix.join(posix.dirname(path), a.to));
      if (!target.startsWith('src/')) {
        if (!/^package\.json$/.test(target)) violations.push(`${path}:${a.line} leaves src/ for ${target}`);
        continue;
      }
      const [from, to] = [folderOf(path), folderOf(target)];
      const [high, low] = [SOURCE_RANK[from], SOURCE_RANK[to]];
      if (high === undefined || low === undefined)
        violations.push(`${path}:${a.line} ${from} → ${to}: a folder without a layer`);
      else if (from !== to && low >= high)
        violations.push(`${path}:${a.line} ${from} → ${to}: ${low > high ? 'points up' : 'points sideways'}`);
      else if (from !== to && PRIVATE.includes(target.replace(/\.js$/, '.ts')))
        violations.push(`${path}:${a.line} ${from} → ${target}: is private to its room`);
    }
  }
  return { files: files.size, arrows: count, violations };
}

function sweepNative(files: Files): Sweep {
  const violations: string[] = [];
  let count = 0;
  for (const [path, text] of files) {
    const from = path.split('/')[1] ?? '';
    for (const a of includesOf(path, text)) {
      const inPlace = posix.join(posix.dirname(path), a.to);
      const target = a.to.startsWith('temper/')
        ? `native/include/${a.to}`
        : files.has(inPlace)
          ? inPlace
          : posix.normalize(`native/${a.to}`);
      if (!files.has(target)) {
        if (NATIVE_RANK[a.to.split('/')[0] ?? ''] !== undefined || a.to.startsWith('.'))
          violations.push(`${path}:${a.line} includes ${a.to}, which is not there`);
        continue; // the system's
      }
      count++;
      const to = target.split('/')[1] ?? '';
      const [high, low] = [NATIVE_RANK[from], NATIVE_RANK[to]];
      if (high === undefined || low === undefined)
        violations.push(`${path}:${a.line} ${from} → ${to}: a folder without a layer`);
      else if (from !== to && low >= high)
        violations.push(`${path}:${a.line} ${from} → ${to}: ${low > high ? 'points up' : 'points sideways'}`);
      else if (from === 'gpu' && !GPU_MAY_INCLUDE.includes(to))
        violations.push(`${path}:${a.line} gpu → ${a.to}: only gpu/ and temper/`);
      else if (from === 'binding' && to === 'cpu' && !BINDING_MAY_INCLUDE_OF_CPU.includes(a.to))
        violations.push(`${path}:${a.line} binding → ${a.to}: ops are called through the table`);
    }
  }
  return { files: files.size, arrows: count, violations };
}

function read(folder: string, pattern: RegExp): Files {
  const out = new Map<string, string>();
  for (const f of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
    const path = relative(root, join(f.parentPath, f.name)).split(sep).join('/');
    if (f.isFile() && pattern.test(f.name)) out.set(path, readFileSync(join(root, path), 'utf8'));
  }
  return out;
}

it('TypeScript imports point down', () => {
  const files = read('src', /\.ts$/);
  const sweep = sweepSources(files);
  expect(sweep.violations).toEqual([]);
  // Every file but the leaves imports something: a pattern that stopped matching would show here.
  const relativeMentions = [...files.values()].reduce(
    (n, text) => n + (text.match(/\bfrom '\.\.?\//g)?.length ?? 0),
    0,
  );
  expect(sweep.files).toBeGreaterThan(40);
  expect(sweep.arrows).toBeGreaterThanOrEqual(relativeMentions);
  process.stderr.write(`layers: ${sweep.arrows} imports in ${sweep.files} TypeScript files\n`);
});

it('native includes point down', () => {
  const files = read('native', /\.(h|cpp|inc|cu|cuh)$/);
  const sweep = sweepNative(files);
  expect(sweep.violations).toEqual([]);
  const own = [...files.values()].reduce((n, text) => n + (text.match(/^#include "/gm)?.length ?? 0), 0);
  expect(sweep.files).toBeGreaterThan(40);
  expect(sweep.arrows).toBe(own);
  process.stderr.write(`layers: ${sweep.arrows} includes in ${sweep.files} native files\n`);
});

it('finds planted violations', () => {
  const plant = (path: string, text: string): readonly string[] => sweepSources(new Map([[path, text]])).violations;
  expect(plant('src/model/a.ts', `import { x } from '../train/loop.js';`)).toEqual([
    'src/model/a.ts:1 model → train: points up',
  ]);
  expect(plant('src/train/a.ts', `\nimport type { x } from '../infer/engine.js';`)).toEqual([
    'src/train/a.ts:2 train → infer: points sideways',
  ]);
  expect(plant('src/data/a.ts', `export * from '../lora/adapter.js';`)).toEqual([
    'src/data/a.ts:1 data → lora: points sideways',
  ]);
  expect(plant('src/native/a.ts', `const m = await import('../model/config.js');`)).toHaveLength(1);
  expect(plant('src/native/a.ts', `import '../harmony/types.js';`)).toHaveLength(1);
  expect(plant('src/model/a.ts', `import { addon } from '../native/addon.js';`)).toEqual([
    'src/model/a.ts:1 model → src/native/addon.js: is private to its room',
  ]);
  expect(plant('src/index.ts', `export * from './cli/main.js';`)).toEqual([
    'src/index.ts:1 index → cli: points sideways',
  ]);
  expect(plant('src/train/a.ts', `import {\n  a,\n  b,\n} from '../cli/command.js';`)).toHaveLength(1);
  expect(plant('src/infer/a.ts', `new Worker(new URL('../train/worker.js', import.meta.url))`)).toHaveLength(1);
  expect(plant('src/infer/a.ts', `openChannel('train/worker.js', null)`)).toEqual([
    "src/infer/a.ts:1 opens a thread of train: another room's",
  ]);
  expect(plant('src/train/a.ts', `openChannel('train/worker.js', null)`)).toEqual([]);
  expect(plant('src/cli/a.ts', `import x from '../../scripts/build-native.mjs';`)).toHaveLength(1);
  expect(plant('src/misc/a.ts', `import { x } from '../native/ops.js';`)).toHaveLength(1);
  expect(
    plant('src/train/sub/a.ts', `import { x } from '../loop.js';\nimport { y } from '../../model/config.js';`),
  ).toEqual([]);

  const native = new Map([
    ['native/core/memory.h', ''],
    ['native/cpu/matmul/matmul.h', ''],
    ['native/cpu/ops.h', ''],
    ['native/tokenizer/bpe.h', ''],
    ['native/include/temper/ops.h', ''],
  ]);
  const plantNative = (path: string, text: string): readonly string[] =>
    sweepNative(new Map([...native, [path, text]])).violations;
  expect(plantNative('native/core/a.cpp', '#include "cpu/ops.h"')).toEqual([
    'native/core/a.cpp:1 core → cpu: points up',
  ]);
  expect(plantNative('native/cpu/a.cpp', '#include "tokenizer/bpe.h"')).toEqual([
    'native/cpu/a.cpp:1 cpu → tokenizer: points sideways',
  ]);
  expect(plantNative('native/cpu/a.cpp', '#include "../tokenizer/bpe.h"')).toHaveLength(1);
  expect(plantNative('native/include/temper/a.h', '#include "core/memory.h"')).toHaveLength(1);
  expect(plantNative('native/binding/a.cpp', '#include "cpu/matmul/matmul.h"')).toEqual([
    'native/binding/a.cpp:1 binding → cpu/matmul/matmul.h: ops are called through the table',
  ]);
  expect(plantNative('native/gpu/ops/a.cu', '#include "core/memory.h"')).toEqual([
    'native/gpu/ops/a.cu:1 gpu → core/memory.h: only gpu/ and temper/',
  ]);
  expect(plantNative('native/cpu/a.cpp', '#include "core/gone.h"')).toHaveLength(1);
  expect(
    plantNative(
      'native/cpu/a.cpp',
      '#include <vector>\n#include "cpu/matmul/matmul.h"\n#include "temper/ops.h"\n#include "core/memory.h"',
    ),
  ).toEqual([]);
});

/**
 * Where JSON.parse stands in src, and why a key that is there twice does not matter there; elsewhere it is parseJson,
 * or readJsonFile of src/base/json-file.ts.
 */
const PLAIN_JSON: Readonly<Record<string, string>> = {
  'base/error-data.ts': 'a copy of what this process made',
  'base/folder-digest.ts': 'what this program wrote, under a digest',
  'base/json.ts': 'the door',
  'base/lock.ts': 'what this program wrote; a lock that cannot be read holds nothing',
  'base/machine.ts': 'of this package',
  'bench/peer.ts': 'what another program measured, shown beside ours',
  'cli/main.ts': 'of this package',
  'demo/rows.ts': 'of this package',
  'export/consumer.ts': 'what a script of this package prints',
  'export/gguf/llama-server.ts': 'what a server says that was started here; only its figures are compared',
  'infer/grammar/grammar.ts': 'a schema, as this process wrote it',
  'infer/grammar/vocabulary-file.ts': 'what this program wrote, under a digest',
  'infer/structures-worker.ts': 'a schema, as this process wrote it',
  'native/safetensors-header.ts': 'single strings; objects are read letter by letter',
  'safeguard/batch/keep.ts': 'to leave out what is kept already',
  'safeguard/batch/kept.ts': 'to find a verdict; parseJson reads it before it counts',
  'safeguard/batch/merge.ts': 'what this program wrote, under a digest',
  'safeguard/batch/reports/source.ts': 'what this program has just written',
  'safeguard/contract.ts': 'to say how an answer strayed, after it was refused',
  'safeguard/detectors/secrets.ts': 'the head of a token: one with a key twice is a token too',
  'safeguard/judges/completion.ts': 'before parseJson, for another message; and to try again, by which nothing passes',
  'safeguard/judges/endpoint.ts': 'the sentence of a refusal',
  'serve/json-pieces.ts': 'JSON of its own making',
  'serve/messages-response.ts': 'arguments that a model wrote, as an object for its client',
  'serve/openapi.ts': 'of this package',
  'serve/stored-record.ts': 'what this server wrote',
  'watch/lines.ts': 'figures of steps, which are shown',
  'watch/page.ts': 'in a browser, of our own server',
};
it('no file of src reads JSON by itself but those that say why', () => {
  const plain = [...read('src', /\.ts$/)].filter(([, text]) => text.includes('JSON.parse(')).map(([path]) => path);
  expect(plain.sort()).toEqual(
    Object.keys(PLAIN_JSON)
      .map((name) => `src/${name}`)
      .sort(),
  );
});
