// The card of every export: what it says of base, run and figures, and its snippets, run as they stand. In the place
// of transformers, peft, llama-server and ollama are stand-ins that check how they are called; TEMPER_PYTHON, a Python
// that has the real ones, runs the Python snippets with them.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { FORMATS } from '../../src/export/formats/index.js';
import { PLAIN_TEMPLATE } from '../../src/export/gguf/chat-template.js';
import { GgufFile } from '../../src/export/gguf/reader.js';
import { type ExportedFormat, runExport } from '../../src/export/run-export.js';
import { verifyExport } from '../../src/export/verify-export.js';
import { toConversation } from '../../src/harmony/chat.js';
import { chatRow } from '../../src/harmony/chat-row.js';
import { renderPrompt } from '../../src/harmony/render.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { MANIFEST_FILE } from '../../src/hub/names.js';
import { readRun } from '../../src/runs/run-folder.js';
import { train } from '../../src/train/train.js';

const root = mkdtempSync(join(tmpdir(), 'temper-cards-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const COMMIT = '0123456789abcdef0123456789abcdef01234567';
const run = join(root, 'run'),
  out = join(root, 'out'),
  base = join(root, 'acme', 'small');
let exports: readonly ExportedFormat[] = [];

/** A few steps on models/nano, as if it had been pulled, and all formats of it. */
beforeAll(async () => {
  mkdirSync(dirname(base));
  cpSync(join(packageRoot, 'models', 'nano'), base, { recursive: true });
  const manifest = { version: 1, endpoint: 'https://hub.test', kind: 'model', name: 'acme/small', revision: 'main' };
  writeFileSync(
    join(base, MANIFEST_FILE),
    JSON.stringify({ ...manifest, commit: COMMIT, covered: [], at: 0, files: [] }),
  );
  const rows = readFileSync(join(packageRoot, 'datasets', 'tickets', 'train.jsonl'), 'utf8').split('\n');
  writeFileSync(join(root, 'rows.jsonl'), `${rows.slice(0, 12).join('\n')}\n`);
  writeFileSync(join(root, 'held.jsonl'), `${rows.slice(12, 18).join('\n')}\n`);
  writeFileSync(
    join(root, 'recipe.yaml'),
    `about: tickets of a few rows
model: { base: acme/small }
adapter: { rank: 4, alpha: 8, targets: [attention, experts] }
device: cpu
data: { train: [{ path: rows.jsonl, format: chat }], eval: [{ path: held.jsonl, format: chat }], maxTokens: 384 }
train: { steps: 6, rowsPerStep: 4, lr: 3.0e-3, precision: f32, evalEvery: 3, seed: 7 }
`,
  );
  await train(join(root, 'recipe.yaml'), { out: run });
  exports = (await runExport({ run, out, format: FORMATS.map((f) => f.name) })).exports;
  standIns();
});

/** What is called: each checks its arguments and the files that they name. */
function standIns(): void {
  const modules = join(root, 'modules'),
    programs = join(root, 'programs');
  mkdirSync(modules);
  mkdirSync(programs);
  writeFileSync(
    join(modules, 'transformers.py'),
    `import json, pathlib
class Mxfp4Config:
    def __init__(self, *, dequantize): assert dequantize is True
class AutoModelForCausalLM:
    @staticmethod
    def from_pretrained(folder, *, dtype="bfloat16", quantization_config=None):
        config = json.loads((pathlib.Path(folder) / "config.json").read_text())
        assert dtype == "bfloat16" and config["model_type"] == "gpt_oss"
        assert ("quantization_config" in config) == isinstance(quantization_config, Mxfp4Config)
        assert list(pathlib.Path(folder).glob("*.safetensors"))
        return folder
`,
  );
  writeFileSync(
    join(modules, 'peft.py'),
    `import json, pathlib
class PeftModel:
    @staticmethod
    def from_pretrained(base, folder):
        config = json.loads((pathlib.Path(folder) / "adapter_config.json").read_text())
        assert base == config["base_model_name_or_path"] == "acme/small"
        assert (pathlib.Path(folder) / "adapter_model.safetensors").exists()
        return folder
`,
  );
  const program = (name: string, text: string): void =>
    writeFileSync(join(programs, name), `#!/usr/bin/env bash\nset -euo pipefail\n${text}`, { mode: 0o755 });
  const isGguf = 'gguf() { [ "$(head -c 4 "$1")" = GGUF ]; }\n';
  program(
    'llama-server',
    `${isGguf}while [ $# -gt 0 ]; do case "$1" in
  -m|--lora) gguf "$2"; shift 2;;
  --jinja) shift;;
  *) echo "unknown: $1" >&2; exit 1;;
esac; done
`,
  );
  program(
    'ollama',
    `${isGguf}[ "$1 $3" = "create -f" ]
sed -nE 's/^(FROM|ADAPTER) //p' "$4" | while read -r file; do gguf "$(dirname "$4")/$file"; done
`,
  );
}
const card = (format: string): string => readFileSync(join(out, format, 'README.md'), 'utf8');
const snippets = (format: string, language: string): string[] =>
  [...card(format).matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, 'g'))].map((m) => m[1] ?? '');
const runs = (command: string, args: readonly string[], cwd: string, env: Record<string, string>): void => {
  const ran = spawnSync(command, args, { cwd, env: { ...process.env, ...env }, encoding: 'utf8' });
  expect([ran.status, ran.stderr], `${command} ${args.join(' ')}`).toEqual([0, expect.any(String)]);
};
const python = process.env.TEMPER_PYTHON ?? 'python3';
const hasPython = spawnSync(python, ['--version']).status === 0;

describe.each(FORMATS.map((f) => f.name))('the card of %s', (format) => {
  it('says what it stands on, what was measured, and who loads it', () => {
    const text = card(format),
      record = readRun(run);
    if (!record?.best) throw new Error('no record');
    const said = [
      'base_model: acme/small',
      `acme/small at commit ${COMMIT}`,
      record.digests.base ?? '?',
      record.digests.recipe ?? '?',
      ...record.data.map((d) => d.sha256),
      'sft, step 6 of 6, seed 7',
      String(Number(record.best.evalLoss.toPrecision(4))),
      'tickets of a few rows',
      '## How to load it',
      '## What loads it',
      ...(FORMATS.find((f) => f.name === format)?.consumers.map((c) => `| ${c.name} |`) ?? []),
    ];
    for (const part of said) expect(text).toContain(part);
    // Every export has something to run.
    expect(snippets(format, 'python').length + snippets(format, 'bash').length).toBeGreaterThan(0);
  });
  it.skipIf(!hasPython)(
    'its Python runs (needs a Python)',
    () => {
      const real = process.env.TEMPER_PYTHON !== undefined,
        folder = join(out, format);
      for (const code of snippets(format, 'python')) {
        // The base by its name, as on the hub.
        symlinkSync(dirname(base), join(folder, 'acme'));
        runs(python, ['-c', code], folder, real ? { HF_HUB_OFFLINE: '1' } : { PYTHONPATH: join(root, 'modules') });
        rmSync(join(folder, 'acme'));
      }
    },
    180_000,
  );
  it('its commands run', () => {
    const folder = join(out, format);
    if (format === 'gguf-lora') symlinkSync(join(out, 'gguf', 'model.gguf'), join(folder, 'model.gguf'));
    for (const line of snippets(format, 'bash').flatMap((s) => s.trim().split('\n')))
      runs('bash', ['-euc', line], folder, { PATH: `${join(root, 'programs')}:${process.env.PATH ?? ''}` });
  });
});

describe('a merge that rounds', () => {
  it.each(['merged-mxfp4', 'gguf'])('%s says the losses of base, adapter and merged model', (format) => {
    const { report, warnings } = exports.find((e) => e.format === format) as ExportedFormat;
    const held = report.heldOut as { base: number; adapter: number; merged: number; kept: number };
    expect(held.adapter).toBeLessThan(held.base);
    expect(held.kept).toBeCloseTo((held.base - held.merged) / (held.base - held.adapter), 9);
    for (const loss of [held.base, held.adapter, held.merged]) expect(card(format)).toContain(loss.toFixed(4));
    expect(warnings.some((w) => /keeps [\d.]+ % of what training gained/.test(w))).toBe(held.kept < 0.9);
    expect((report.survived as unknown[]).length).toBe(4);
  });
  it('is the same one in both files', () => {
    const [one, two] = ['merged-mxfp4', 'gguf'].map((f) => exports.find((e) => e.format === f)?.report);
    const loss = (r: typeof one): number => (r?.heldOut as { merged: number } | undefined)?.merged ?? Number.NaN;
    // But for the router, which is no target here, and for sums of its f32 weights.
    expect(loss(one)).toBeCloseTo(loss(two), 5);
    expect(one?.survivedExperts).toBeCloseTo(two?.survivedExperts as number, 9);
  });
});

it('a run that was trained through the rounding of a merge is what its gguf files compute', async () => {
  const set = ['adapter.mergeAware=mxfp4', 'adapter.targets=[attention, experts, router]', 'train.steps=2'];
  const aware = (await train(join(root, 'recipe.yaml'), { out: join(root, 'aware'), set })).run;
  for (const format of ['gguf', 'gguf-f32']) {
    const to = join(root, `aware-${format}`);
    const made = await runExport({ run: aware, out: to, format: [format] });
    expect(made.exports[0]?.warnings.filter((w) => w.includes('mergeAware'))).toEqual([]);
    const found = await verifyExport({ dir: to });
    expect(found, format).toMatchObject({ ok: true, tolerance: 1e-4 });
    expect(found.maxDifference).toBeLessThan(1e-5 * found.maxLogit);
    expect(found.maxEffect).toBeGreaterThan(100 * found.maxDifference);
    if (format === 'gguf')
      expect(made.exports[0]?.report.heldOut).toMatchObject({ kept: expect.closeTo(1, 4) as number });
  }
});

/** Modelfile: https://docs.ollama.com/modelfile; its template is one of Go's text/template. */
describe('the Modelfile', () => {
  const PARAMETERS = ['temperature', 'top_p', 'top_k', 'min_p', 'num_ctx', 'num_predict', 'seed', 'stop'];
  const parsed = (text: string): [string, string][] => {
    const found: [string, string][] = [];
    const rest = text.replaceAll(/^([A-Z]+) """([\s\S]*?)"""\n/gm, (_, name: string, value: string) => {
      found.push([name, value]);
      return '';
    });
    for (const line of rest.split('\n').filter((l) => l !== '' && !l.startsWith('#'))) {
      const [, name = '', value = ''] = /^([A-Z]+) (\S.*)$/.exec(line) ?? [];
      found.push([name, value]);
    }
    return found;
  };
  it.each(['gguf', 'gguf-f32', 'gguf-lora'])('of %s has instructions that there are', (format) => {
    const lines = parsed(readFileSync(join(out, format, 'Modelfile'), 'utf8'));
    const names = lines.map(([name]) => name).sort();
    const lora = format === 'gguf-lora';
    expect(names).toEqual([...(lora ? ['ADAPTER'] : []), 'FROM', 'PARAMETER', 'PARAMETER', 'TEMPLATE']);
    const value = (name: string): string => lines.find(([n]) => n === name)?.[1] ?? '';
    expect(value('FROM')).toBe('./model.gguf');
    if (lora) expect(value('ADAPTER')).toBe('./adapter.gguf');
    for (const [name, text] of lines.filter(([n]) => n === 'PARAMETER')) {
      const [key = '', number] = text.split(' ');
      expect(PARAMETERS, name).toContain(key);
      expect(Number(number)).toBeGreaterThan(0);
    }
  });
  it('renders a conversation as harmony does', () => {
    const template = parsed(readFileSync(join(out, 'gguf', 'Modelfile'), 'utf8')).find(([n]) => n === 'TEMPLATE')?.[1];
    const tokenizer = loadTokenizer(base, { vocabSize: 1024 });
    const dialogue = [
      { role: 'user', content: 'Book a table.' },
      { role: 'assistant', content: 'For whom?' },
      { role: 'user', content: 'For Rossi.\n' },
    ];
    for (const system of ['Be brief.', ''])
      for (const effort of ['', 'high'] as const) {
        const messages = [...(system ? [{ role: 'system', content: system }] : []), ...dialogue];
        const row = chatRow.parse({ messages, ...(effort ? { reasoning_effort: effort } : {}) });
        const want = tokenizer.decode(renderPrompt(toConversation(row), tokenizer));
        expect(rendered(template ?? '', { System: system, ThinkLevel: effort, Messages: messages })).toBe(want);
      }
    tokenizer.close();
  });
});

describe('the chat template of a base that has none', () => {
  const script = `import json, sys, jinja2
def fail(message): raise jinja2.TemplateError(message)
environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
environment.globals["raise_exception"] = fail
template = environment.from_string(open(sys.argv[1]).read())
print(json.dumps([template.render(**x) for x in json.load(sys.stdin)]))`;
  const hasJinja = spawnSync(python, ['-c', 'import jinja2']).status === 0;
  const user = { role: 'user', content: 'Book a table.' },
    answer = { role: 'assistant', content: 'For whom?' },
    brief = { role: 'system', content: 'Be brief.' },
    kind = { role: 'developer', content: 'Be kind.' };
  const CASES = [
    { messages: [user] },
    { messages: [brief, user], reasoning_effort: 'high' },
    { messages: [brief, kind, user, answer, user] },
    { messages: [user, answer, kind, { role: 'user', content: 'For "Rossi"\\\n' }] },
  ] as const;
  it.skipIf(!hasJinja)('renders a conversation as harmony does (needs a Python with jinja2)', () => {
    const file = join(root, 'template.jinja');
    writeFileSync(file, PLAIN_TEMPLATE);
    const input = JSON.stringify(CASES.map((c) => ({ ...c, add_generation_prompt: true })));
    const ran = spawnSync(python, ['-c', script, file], { input, encoding: 'utf8' });
    expect(ran.stderr).toBe('');
    const tokenizer = loadTokenizer(base, { vocabSize: 1024 });
    const want = CASES.map((c) => tokenizer.decode(renderPrompt(toConversation(chatRow.parse(c)), tokenizer)));
    tokenizer.close();
    expect(JSON.parse(ran.stdout)).toEqual(want);
    const tools = spawnSync(python, ['-c', script, file], {
      input: '[{"messages": [], "tools": [1]}]',
      encoding: 'utf8',
    });
    expect(tools.stderr).toContain('has no tools');
  });
  it('is in the file', () => {
    using file = GgufFile.open(join(out, 'gguf', 'model.gguf'));
    expect(file.header.metadata.get('tokenizer.chat_template')?.value).toBe(PLAIN_TEMPLATE);
  });
});

interface Given {
  readonly System: string;
  readonly ThinkLevel: string;
  readonly Messages: readonly { readonly role: string; readonly content: string }[];
}
/** As much of Go's text/template as the Modelfile uses: fields, if, else if, else, range, eq, and trimming. */
function rendered(template: string, given: Given): string {
  const pieces = template
    .replaceAll(/\s+\{\{-\s/g, '{{ ')
    .replaceAll(/\s-\}\}\s+/g, ' }}')
    .split(/(\{\{.*?\}\})/);
  type Dot = Given | Given['Messages'][number];
  const value = (word: string, dot: Dot): unknown => {
    const fields: Record<string, unknown> =
      'role' in dot ? { '.Role': dot.role, '.Content': dot.content } : { '.System': dot.System };
    if ('Messages' in dot) Object.assign(fields, { '.ThinkLevel': dot.ThinkLevel, '.Messages': dot.Messages });
    if (/^".*"$/.test(word)) return word.slice(1, -1);
    if (!(word in fields)) throw new Error(`the template says ${word}`);
    return fields[word];
  };
  const holds = (condition: string, dot: Dot): boolean => {
    const [first = '', a = '', b = ''] = condition.split(' ');
    return first === 'eq' ? value(a, dot) === value(b, dot) : value(first, dot) !== '';
  };
  let at = 0;
  /** From `at` to the end or else of this block; `on`: it is written. */
  const block = (dot: Dot, on: boolean): string => {
    let text = '';
    for (; at < pieces.length; at++) {
      const action = /^\{\{ ?(.*?) ?\}\}$/.exec(pieces[at] ?? '')?.[1];
      if (action === undefined) {
        if (on) text += pieces[at] ?? '';
        continue;
      }
      if (action === 'end' || action.startsWith('else')) return text;
      const [, kind, condition = ''] = /^(if|range) (.*)$/.exec(action) ?? [];
      if (kind === undefined) {
        if (on) text += String(value(action, dot));
        continue;
      }
      if (kind === 'range') {
        const from = ++at,
          list = on ? (value(condition, dot) as Given['Messages']) : [];
        block(dot, false);
        const end = at;
        for (const item of list) {
          at = from;
          text += block(item, true);
        }
        at = end;
        continue;
      }
      let done = !on,
        take = on && holds(condition, dot);
      for (;;) {
        at++;
        const part = block(dot, take);
        text += part;
        done ||= take;
        const next = /^\{\{ ?(.*?) ?\}\}$/.exec(pieces[at] ?? '')?.[1] ?? '';
        if (next === 'end') break;
        take = !done && (next === 'else' || holds(next.replace(/^else if /, ''), dot));
      }
    }
    return text;
  };
  const text = block(given, true);
  expect(at).toBe(pieces.length);
  return text;
}
