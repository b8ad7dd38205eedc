// A turn ends where the model says so: at every id of eos_token_id, and at <|endoftext|>. The model is models/nano with
// two rows of its head exchanged, so that it says another token where it says <|return|>.
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngineJudge } from '../../src/compose/engine-judge.js';
import { createGenerator } from '../../src/compose/generator.js';
import { conversation } from '../../src/compose/turn.js';
import { openEngine } from '../../src/infer/engine.js';
import type { DoneEvent } from '../../src/infer/protocol.js';
import { readConfig } from '../../src/model/config.js';
import { endTokens, NOT_TAKEN } from '../../src/model/generation-config.js';
import { openSafetensors } from '../../src/native/safetensors.js';

const root = mkdtempSync(join(tmpdir(), 'temper-ends-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const RETURN = 1007,
  ENDOFTEXT = 1004,
  RESERVED = 1014,
  ORDINARY = 700;

/** models/NAME whose head says `end` where it said <|return|>. */
function saying(name: string, end: number, generation: unknown): string {
  const from = fileURLToPath(new URL(`../../models/${name}`, import.meta.url)),
    to = mkdtempSync(join(root, 'm-'));
  mkdirSync(to, { recursive: true });
  for (const file of ['config.json', 'tokenizer.json']) copyFileSync(join(from, file), join(to, file));
  if (generation !== null) writeFileSync(join(to, 'generation_config.json'), JSON.stringify(generation));
  const bytes = readFileSync(join(from, 'model.safetensors'));
  using file = openSafetensors(join(from, 'model.safetensors'));
  const entry = file.entry('lm_head.weight'),
    row = (entry.shape[1] ?? 0) * 2,
    base = entry.begin;
  const a = Buffer.from(bytes.subarray(base + end * row, base + (end + 1) * row));
  bytes.copyWithin(base + end * row, base + RETURN * row, base + (RETURN + 1) * row);
  a.copy(bytes, base + RETURN * row);
  writeFileSync(join(to, 'model.safetensors'), bytes);
  return to;
}
async function answer(dir: string): Promise<DoneEvent> {
  const engine = await openEngine({ model: dir, slots: 1 });
  try {
    for await (const event of engine.generate({
      messages: conversation({ effort: 'medium' }, [
        { role: 'user', content: 'Please book a table for 4 people on friday at 19:30 for Rossi' },
      ]),
      maxTokens: 120,
      sampling: { temperature: 0 },
    }))
      if (event.kind === 'done') return event;
  } finally {
    await engine.close();
  }
  throw new Error('no end');
}

describe('an answer ends', () => {
  /** What nano itself says: the first case. */
  let plain: string | undefined;
  it.each<[string, number, unknown]>([
    ['at <|return|>', RETURN, null],
    ['at <|endoftext|>, whatever the files say', ENDOFTEXT, null],
    [
      'at <|endoftext|> of generation_config.json',
      ENDOFTEXT,
      { eos_token_id: [RETURN, ENDOFTEXT, 1017], do_sample: true },
    ],
    ['at a reserved token it names', RESERVED, { eos_token_id: RESERVED }],
    ['at an ordinary token it names', ORDINARY, { eos_token_id: [ORDINARY] }],
  ])('%s', async (_, end, generation) => {
    const done = await answer(saying('nano', end, generation));
    expect(done.finish).toBe('stop');
    expect(done.tokens.at(-1)).toBe(end);
    const said = done.messages.at(-1);
    expect(said).toMatchObject({ role: 'assistant', channel: 'final' });
    expect(said?.content.length).toBeGreaterThan(20);
    plain ??= said?.content;
    expect(said?.content).toBe(plain);
  });
  it('not at a token that nobody names', async () => {
    expect((await answer(saying('nano', RESERVED, { eos_token_id: RETURN }))).finish).toBe('length');
  });
  it("a local judge's verdict does too", async () => {
    const engine = await openEngine({ model: saying('nano-judge', ENDOFTEXT, { eos_token_id: [RETURN, ENDOFTEXT] }) });
    try {
      const judge = await createEngineJudge(engine, { name: 'judge', maxTokens: 256 });
      const reply = await judge.judge({
        policy: readFileSync(new URL('../../policies/contact/policy.md', import.meta.url), 'utf8'),
        content: 'The table is booked.',
        channel: 'final',
        nonce: 'nonce',
        signal: AbortSignal.timeout(60_000),
      });
      expect(reply).toMatchObject({ finish: 'stop' });
    } finally {
      await engine.close();
    }
  });
});

it('a question longer than the context has no answer, and does not end those of others', async () => {
  const generator = await createGenerator({
    model: fileURLToPath(new URL('../../models/nano', import.meta.url)),
    adapter: null,
    maxTokens: 60,
  });
  try {
    const asked = (text: string): Promise<string | null> =>
      generator.final(conversation({ effort: 'medium' }, [{ role: 'user', content: text }]));
    const [long, short] = await Promise.all([
      asked('book '.repeat(2000)),
      asked('Please book a table for 4 people on friday at 19:30 for Rossi'),
    ]);
    expect(long).toBeNull();
    expect(short?.length).toBeGreaterThan(20);
  } finally {
    await generator.close();
  }
});

describe('generation_config.json', () => {
  const nano = readConfig(fileURLToPath(new URL('../../models/nano', import.meta.url)));
  const read = (text: string): readonly number[] => {
    const dir = mkdtempSync(join(root, 'g-'));
    writeFileSync(join(dir, 'generation_config.json'), text);
    return endTokens(dir, nano);
  };
  it('is read for its ends, and together with config.json', () => {
    expect(read('{"eos_token_id": [1004, 1007, 1004]}')).toEqual([1007, 1004]);
    expect(read('{"eos_token_id": 3}')).toEqual([1007, 3]);
    expect(read('{"eos_token_id": null, "temperature": 0.7}')).toEqual([1007]);
    expect(endTokens(root, nano)).toEqual([1007]);
    for (const [key, reason] of Object.entries(NOT_TAKEN)) {
      expect(reason.length).toBeGreaterThan(5);
      expect(read(JSON.stringify({ [key]: 1 }))).toEqual([1007]);
    }
  });
  it.each([
    ['{', /not JSON.*download it again/],
    ['[]', /no object/],
    ['{"eos_token_id": "x"}', /wanted a token id/],
    ['{"eos_token_id": [1.5]}', /wanted a token id/],
    ['{"eos_token_id": 1024}', /names 1024, the model's vocabulary has ids 0…1023/],
    ['{"eos_token_id": -1}', /names -1/],
    ['{"next_years_setting": 1}', /next_years_setting is not known here/],
  ])('%s is refused', (text, message) => expect(() => read(text)).toThrow(message));
});
