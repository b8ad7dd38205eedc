// A schema is made ready in a thread of its own: the one that samples works out nothing that another stream would wait
// for, and the arrays of a vocabulary are read where they were kept.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { type CharacterTable, fromTable } from '../../src/infer/grammar/characters.js';
import type { Grammar } from '../../src/infer/grammar/grammar.js';
import { setMasks } from '../../src/infer/grammar/masks.js';
import { setsWorkedOut } from '../../src/infer/grammar/plans.js';
import { TurnConstraint } from '../../src/infer/grammar/turn.js';
import { vocabularyOf } from '../../src/infer/grammar/vocabulary.js';
import { readVocabulary, writeVocabulary } from '../../src/infer/grammar/vocabulary-file.js';
import { openStructures } from '../../src/infer/structures.js';

const model = join(packageRoot, 'models', 'nano');
const tokenizer = loadTokenizer(model, { vocabSize: 1024 });
const folder = mkdtempSync(join(tmpdir(), 'temper-structures-'));
const before = process.env.TEMPER_CACHE;
process.env.TEMPER_CACHE = folder;
const structures = openStructures({ model, vocabSize: 1024 });
afterAll(async () => {
  if (before === undefined) delete process.env.TEMPER_CACHE;
  else process.env.TEMPER_CACHE = before;
  await structures.close();
  tokenizer.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Writes a text, token by token, through a turn's masks. */
function write(turn: TurnConstraint, tokens: Iterable<number>): void {
  for (const token of tokens) {
    const mask = turn.mask();
    expect([tokenizer.decode([token]), ((mask[token >> 5]! >> (token & 31)) & 1) === 1]).toEqual([
      tokenizer.decode([token]),
      true,
    ]);
    turn.took(token);
  }
}
const special = (name: string): number => tokenizer.special[`<|${name}|>`]!;
const text = (t: string): readonly number[] => [...tokenizer.encode(t)];

it('before a call that must come a turn says two things at the most', async () => {
  const calls = [{ recipient: 'functions.f', strict: false }];
  const { structure } = await structures.prepare({ calls, mustCall: true });
  const turn = new TurnConstraint(structure, tokenizer);
  const before = (channel: string): readonly number[] => [
    ...[special('channel'), ...text(channel), special('message'), ...text('Well.')],
    ...[special('end'), special('start'), ...text('assistant')],
  ];
  write(turn, [...before('analysis'), ...before('commentary'), special('channel')]);
  const mask = turn.mask();
  const may = (word: string): boolean => {
    const [first = 0] = text(word);
    return ((mask[first >> 5]! >> (first & 31)) & 1) === 1;
  };
  expect([may('analysis'), may('commentary to=functions.f')]).toEqual([false, true]);
  write(turn, [...text('commentary to=functions.f'), special('message'), ...text('{}'), special('call')]);
});

describe('a new schema', () => {
  it('costs the thread that samples no set of characters: they come with it', async () => {
    const answer = {
      type: 'object',
      properties: {
        id: { type: 'string', pattern: '^[A-Z]{3}-\\d{4}$', maxLength: 8 },
        mail: { type: 'string', pattern: '^[\\w.+-]+@[\\w-]+\\.\\p{L}+$' },
        kind: { enum: ['red', 'green'] },
      },
      patternProperties: { '^x-': { type: 'string', pattern: 'z$' } },
      required: ['id', 'mail'],
      additionalProperties: false,
    };
    const { structure, checked } = await structures.prepare({ answer, calls: [], mustCall: false });
    expect(checked).toEqual([]);
    const worked = setsWorkedOut();
    const value = { mail: 'some.one@example.org', 'x-a': 'yz', id: 'ABC-1234', kind: 'red' };
    write(new TurnConstraint(structure, tokenizer), [
      special('channel'),
      ...text('final'),
      special('message'),
      ...text(JSON.stringify(value)),
      special('return'),
    ]);
    expect(setsWorkedOut() - worked).toBe(0);
    // What its sets do to the vocabulary comes with them, too.
    const { sets, masks } = structure.final as Grammar;
    expect(masks.length).toBeGreaterThan(2);
    for (const [key, own] of masks) {
      const table = new Map(sets).get(key) as CharacterTable;
      expect(own.states).toBe(Math.min(32, table.accepts.length));
      expect(setMasks(structure.vocabulary, fromTable(table), own.states)).toEqual(own);
    }
  });
  it('that takes too long, or has too many cases, is refused; the next one is not', async () => {
    const cases = { anyOf: Array.from({ length: 60 }, (_, i) => ({ properties: { [`p${i}`]: { const: i } } })) };
    const many = structures.prepare({ answer: { allOf: [cases, cases, cases] }, calls: [], mustCall: false });
    await expect(many).rejects.toMatchObject({ code: 'schema_unsupported' });
    const { checked } = await structures.prepare({ answer: { type: 'object' }, calls: [], mustCall: false });
    expect(checked).toEqual([]);
  });
  it('that is long holds up no other', async () => {
    const numbers = Array.from({ length: 60 }, (_, i) => ({ properties: { k: { const: i } }, required: ['k'] }));
    const long = { oneOf: numbers, $comment: 'x'.repeat(70_000) };
    const order: string[] = [];
    const broken = async (name: string, answer: object): Promise<boolean> => {
      const { check } = await structures.prepare({ answer, calls: [], mustCall: false });
      order.push(name);
      return (await check([{ role: 'assistant', channel: 'final', content: '{"k":60}' }])) !== null;
    };
    const all = [
      broken('long', long),
      broken('other', { properties: { k: { type: 'string' } } }),
      broken('last', { properties: { k: { const: 60 } } }),
    ];
    expect(await Promise.all(all)).toEqual([true, true, false]);
    expect(order).toEqual(['other', 'last', 'long']);
  });
  it('that there was no time for goes on in a thread of those that take long', async () => {
    const patient = openStructures({ model, vocabSize: 1024 }, 0);
    try {
      const calls = [{ recipient: 'functions.f', strict: true, schema: { properties: { k: { const: 1 } } } }];
      const { check } = await patient.prepare({ answer: { type: 'object' }, calls, mustCall: false });
      const call = (content: string) => ({
        role: 'assistant',
        channel: 'commentary',
        recipient: 'functions.f',
        content,
      });
      expect(await check([call('{"k":1}') as never])).toBe(null);
      expect(await check([call('{"k":2}') as never])).toContain('k');
    } finally {
      await patient.close();
    }
  });
});

describe('the arrays of a vocabulary', () => {
  it('are kept by what the tokenizer is, and read as they were written', async () => {
    await structures.prepare({ answer: {}, calls: [], mustCall: false });
    const kept = readdirSync(join(folder, 'vocabularies'));
    expect(kept).toEqual([expect.stringMatching(/^[0-9a-f]{64}-1024\.bin$/)]);
    const made = vocabularyOf(tokenizer, 1024);
    const file = join(folder, 'vocabularies', kept[0]!);
    expect(readVocabulary(file)).toEqual(made);
    expect(readVocabulary(file)?.stay.buffer).toBeInstanceOf(SharedArrayBuffer);
  });
  it('that are not what they were are not read', () => {
    const file = join(folder, 'odd.bin');
    writeVocabulary(file, vocabularyOf(tokenizer, 1024));
    const good = readFileSync(file);
    expect(readVocabulary(file)).not.toBe(null);
    const odd = [
      good.subarray(0, 100),
      good.subarray(0, good.length - 1),
      Buffer.concat([good, Buffer.alloc(8)]),
      Buffer.alloc(0),
      Buffer.from(good).fill(7, good.length - 40, good.length - 30),
      Buffer.from(good).fill(0xff, 8, 12),
    ];
    for (const bytes of odd) {
      writeFileSync(file, bytes);
      expect(readVocabulary(file)).toBe(null);
    }
    expect(readVocabulary(join(folder, 'none.bin'))).toBe(null);
  });
});
