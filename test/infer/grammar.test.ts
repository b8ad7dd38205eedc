// Schemas as grammars: what keeps to one can be written, what breaks it cannot, and a mask says what trying each token
// says.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { createChecker } from '../../src/infer/grammar/check.js';
import { Evaluator } from '../../src/infer/grammar/evaluate.js';
import { Masks } from '../../src/infer/grammar/masks.js';
import { compileSchema } from '../../src/infer/grammar/schema.js';
import { beginText, mayEnd, type State, stepState } from '../../src/infer/grammar/values.js';
import { vocabularyOf } from '../../src/infer/grammar/vocabulary.js';

const tokenizer = loadTokenizer(join(packageRoot, 'models', 'nano'), { vocabSize: 1024 });
afterAll(() => tokenizer.close());
const vocabulary = vocabularyOf(tokenizer, 1024);
const masks = new Masks(vocabulary, (t) => tokenizer.bytes(t));
const follow = (state: State, bytes: Iterable<number>): State => {
  let at = state;
  for (const b of bytes) at = stepState(at, b);
  return at;
};
const writable = (schema: unknown, text: string): boolean =>
  mayEnd(follow(beginText(compileSchema(schema).root), Buffer.from(text)));
const maskOf = (state: State): Int32Array => {
  const mask = new Int32Array(vocabulary.words);
  masks.add(mask, state);
  return mask;
};
const has = (mask: Int32Array, token: number): boolean => ((mask[token >> 5]! >> (token & 31)) & 1) === 1;
const ordinary = Array.from({ length: 1024 }, (_, t) => t).filter((t) => tokenizer.bytes(t).length > 0);

describe('the suite of JSON Schema, every fourth group', () => {
  interface Group {
    readonly file: string;
    readonly description: string;
    readonly schema: unknown;
    readonly tests: readonly { readonly description: string; readonly data: unknown; readonly valid: boolean }[];
  }
  const groups = JSON.parse(
    readFileSync(join(packageRoot, 'test/golden/json-schema/sample.json'), 'utf8'),
  ) as readonly Group[];
  it('valid instances can be written, invalid ones pass nowhere, the rest is refused by name', () => {
    const seen = { held: 0, refused: 0, valid: 0, invalid: 0 };
    const wrong: string[] = [];
    for (const { file, description, schema, tests } of groups) {
      let checker: ReturnType<typeof createChecker>;
      try {
        checker = createChecker(schema);
      } catch (e) {
        expect(e).toMatchObject({ code: expect.stringMatching(/^schema_(unsupported|invalid)$/) as string });
        seen.refused++;
        continue;
      }
      seen.held++;
      const own = new Evaluator(schema, compileSchema(schema).references);
      for (const t of tests)
        for (const text of [JSON.stringify(t.data), JSON.stringify(t.data, null, 2)]) {
          const [reached, kept] = [writable(schema, text), checker.check(text) === null];
          // The second opinion is right by itself; of JSON Schema's own documents it knows nothing.
          if (!JSON.stringify(schema).includes('"$ref":"https://json-schema.org'))
            expect([description, t.description, own.allows(t.data)]).toEqual([description, t.description, t.valid]);
          seen[t.valid ? 'valid' : 'invalid']++;
          const where = `${file}: ${description}: ${t.description}`;
          if (t.valid && !(reached && kept)) wrong.push(where);
          if (!t.valid && reached && (kept || checker.checked.length === 0)) wrong.push(`accepted: ${where}`);
        }
    }
    // Integers are written without exponents.
    expect(wrong.filter((w) => !/^optional\/(?:bignum|float-overflow)/.test(w))).toEqual([]);
    expect(seen).toMatchObject({ held: groups.length - 7, refused: 7 });
    expect(Math.min(seen.valid, seen.invalid)).toBeGreaterThan(150);
  });
});

const closed = (properties: object): object => ({
  type: 'object',
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});
const text = { type: 'string' };
/** Schemas and a value that keeps to each. */
const cases: readonly (readonly [unknown, unknown])[] = [
  [closed({ city: text, days: { type: 'integer', minimum: 1, maximum: 14 } }), { days: 7, city: 'Bern "x" \\ é\n☃' }],
  [closed({ a: { type: 'string', minLength: 2, maxLength: 5 } }), { a: 'a"é\n' }],
  [
    { type: 'object', properties: { name: text, n: { type: 'number' } } },
    { nam: 'x', name: 'y', n: -0.5, names: [1] },
  ],
  [{}, { any: ['x', 1e-7, true, null, { deep: [[], {}] }] }],
  [closed({ id: { type: 'string', pattern: '^[A-Z]{2}-\\d{2}$' } }), { id: 'AB-12' }],
  [closed({ s: { type: 'string', pattern: '^[\\w.]+@\\S+$' } }), { s: 'a.b@cé' }],
  [{ enum: ['red', 're"d', 3, null, [1, { a: 'b' }]] }, [1, { a: 'b' }]],
  [
    { anyOf: [closed({ t: { const: 'a' }, x: text }), closed({ t: { const: 'b' }, y: { type: 'integer' } })] },
    { y: 12, t: 'b' },
  ],
  [{ type: 'number', exclusiveMinimum: 0, maximum: 2.5, multipleOf: 0.25 }, 1.75],
  [{ type: 'integer', minimum: -120, maximum: -7 }, -98],
  [
    { type: 'array', prefixItems: [{ type: 'boolean' }], items: { type: 'integer' }, minItems: 2, maxItems: 4 },
    [true, 1],
  ],
  [
    { type: 'object', patternProperties: { '^x': { type: 'integer' } }, additionalProperties: false },
    { xa: 1, x: 2 },
  ],
  [
    { type: 'object', additionalProperties: { type: 'integer' }, minProperties: 1, maxProperties: 2 },
    { ab: 1, c: 2 },
  ],
  [
    { $defs: { t: { type: 'object', properties: { next: { $ref: '#/$defs/t' } } } }, $ref: '#/$defs/t' },
    { next: { next: {} } },
  ],
  [
    { type: 'object', properties: { a: text }, dependentRequired: { a: ['b'] }, maxProperties: 2 },
    { a: 'x', b: 1 },
  ],
];

describe('masks', () => {
  it('allow the tokens that trying each of them allows, and no others', () => {
    let compared = 0;
    for (const [schema, value] of cases) {
      const { root } = compileSchema(schema);
      for (const written of [JSON.stringify(value), JSON.stringify(value, null, 1)]) {
        let state = beginText(root);
        for (const token of tokenizer.encode(written)) {
          const mask = maskOf(state);
          const wrong = ordinary.filter((t) => has(mask, t) !== follow(state, tokenizer.bytes(t)).length > 0);
          expect([written, wrong.map((t) => tokenizer.decode([t]))]).toEqual([written, []]);
          expect(has(mask, token)).toBe(true);
          state = follow(state, tokenizer.bytes(token));
          compared++;
        }
        expect(mayEnd(state)).toBe(true);
      }
    }
    expect(compared).toBeGreaterThan(300);
  });
  it('whatever is chosen of them ends in a value that keeps to its schema', () => {
    let seed = 3;
    const next = (n: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return (seed >>> 8) % n;
    };
    let whole = 0;
    for (let round = 0; round < 4; round++)
      for (const [schema] of cases) {
        const { root, checked } = compileSchema(schema);
        expect(checked).toEqual([]);
        const checker = createChecker(schema);
        let state = beginText(root);
        let out = Buffer.alloc(0);
        for (let i = 0; i < 150 && !(mayEnd(state) && next(4) === 0); i++) {
          const mask = maskOf(state);
          const may = ordinary.filter((t) => has(mask, t));
          if (may.length === 0) break;
          // Short tokens of structure now and then, so that some of them come to an end.
          const ends = may.filter((t) => /^["\]},:]/.test(tokenizer.decode([t])));
          const from = ends.length > 0 && next(3) > 0 ? ends : may;
          const bytes = tokenizer.bytes(from[next(from.length)]!);
          out = Buffer.concat([out, bytes]);
          state = follow(state, bytes);
        }
        expect(state.length).toBeGreaterThan(0);
        if (!mayEnd(state)) continue;
        whole++;
        expect([out.toString(), checker.check(out.toString())]).toEqual([out.toString(), null]);
      }
    expect(whole).toBeGreaterThan(25);
  });
});

describe('patterns that look ahead from the beginning', () => {
  it.each([
    ['^(?!foo)[a-z]+$', ['fo', 'barfoo', 'x'], ['foo', 'foob', '']],
    ['^(?=.*[A-Z])(?=.*\\d).{4,}$', ['aB3x', '1234Z'], ['abcd', 'AB3', 'ABCD', '1234']],
    ['^(?!.*[)]$)(?!a|b)', ['c', ''], ['c)', 'a', 'bc']],
  ])('%s', (pattern, good, bad) => {
    const schema = { type: 'string', pattern };
    const { check, checked } = createChecker(schema);
    expect(checked).toEqual([]);
    for (const [texts, may] of [
      [good, true],
      [bad, false],
    ] as const)
      for (const t of texts) {
        expect([t, new RegExp(pattern, 'u').test(t)]).toEqual([t, may]);
        expect([t, writable(schema, JSON.stringify(t)), check(JSON.stringify(t)) === null]).toEqual([t, may, may]);
      }
  });
});

describe('resources inside a schema', () => {
  const schema = {
    $id: 'https://example.org/tree',
    type: 'object',
    properties: { leaf: { $ref: 'parts/leaf' }, n: { $ref: '#count' }, sub: { $ref: 'https://example.org/tree' } },
    additionalProperties: false,
    $defs: {
      l: {
        $id: '/parts/leaf',
        properties: { v: { $ref: '#/$defs/v' } },
        $defs: { v: { type: 'string', maxLength: 3 } },
      },
      c: { $anchor: 'count', type: 'integer' },
    },
  };
  it('are found by their URIs, and references in them are read against their own', () => {
    const { check, checked } = createChecker(schema);
    expect(checked).toEqual([]);
    for (const [value, may] of [
      [{ leaf: { v: 'abc' }, n: 3, sub: { n: 4 } }, true],
      [{ leaf: { v: 'abcd' } }, false],
      [{ sub: { n: 'x' } }, false],
    ] as const) {
      const text = JSON.stringify(value);
      expect([text, writable(schema, text), check(text) === null]).toEqual([text, may, may]);
    }
  });
});

describe('what is left unevaluated', () => {
  const base = { $defs: { base: { properties: { a: { type: 'integer' } }, required: ['a'] } } };
  it.each([
    // Whatever the value: the grammar keeps to it.
    [
      { ...base, allOf: [{ $ref: '#/$defs/base' }], properties: { b: {} }, unevaluatedProperties: false },
      [],
      '{"a":1,"b":2}',
      '{"a":1,"c":2}',
    ],
    [{ prefixItems: [{}, {}], unevaluatedItems: { type: 'string' } }, [], '[1,2,"x"]', '[1,2,3]'],
    // Not so: a name that no case knows cannot be written, the rest is checked.
    [
      {
        anyOf: [{ properties: { a: { const: 1 } }, required: ['a'] }, { properties: { b: {} } }],
        unevaluatedProperties: false,
      },
      ['#/unevaluatedProperties'],
      '{"a":1}',
      '{"c":1}',
    ],
    [
      { if: { properties: { a: { const: 1 } }, required: ['a'] }, unevaluatedProperties: false },
      ['#/unevaluatedProperties'],
      '{"a":1}',
      '{"a":2}',
    ],
  ])('%j', (schema, checked, good, bad) => {
    const checker = createChecker(schema);
    expect(checker.checked).toEqual(checked);
    expect([writable(schema, good), checker.check(good)]).toEqual([true, null]);
    expect(writable(schema, bad) && checker.check(bad) === null).toBe(false);
    if (checked.length === 0) expect(writable(schema, bad)).toBe(false);
  });
});

describe('multiples', () => {
  it.each([
    [0.01, '4996.73', true],
    [0.1, '81677.2', true],
    [1e-7, '404.18', true],
    [1.1, '3730507', true],
    [3, '1e21', false],
    [1.5, '9007199254740991', false],
  ])('of %d: %s', (step, number, isMultiple) => {
    const [held, not] = [
      createChecker({ multipleOf: step }),
      createChecker({ type: 'number', not: { multipleOf: step } }),
    ];
    expect([held.check(number) === null, not.check(number) === null]).toEqual([isMultiple, !isMultiple]);
  });
});

describe('nothing is begun that cannot end', () => {
  const at = (schema: unknown, text: string): readonly string[] => {
    const state = follow(beginText(compileSchema(schema).root), Buffer.from(text));
    return [...Array(128).keys()].filter((b) => stepState(state, b).length > 0).map((b) => String.fromCharCode(b));
  };
  it('a member, where a pattern has no name left', () => {
    const schema = { type: 'object', patternProperties: { '^(a|b)$': { type: 'null' } }, additionalProperties: false };
    expect(at(schema, '{"b":null')).toContain(',');
    expect(at(schema, '{"b":null,"a":null')).not.toContain(',');
    expect(at(schema, '{"b":null,"')).toEqual(['\\', 'a']);
    expect(writable({ ...schema, minProperties: 2 }, '{"b":null,"\\u0061":null}')).toBe(true);
    expect(() => createChecker({ ...schema, minProperties: 3 })).toThrow('no value');
    const long = { ...schema, patternProperties: { '^a*$': true, '^[a-z][0-9]$': false } };
    expect(writable(long, '{"":1,"a":2,"aa":3}')).toBe(true);
  });
  it('a number between bounds that leave none', () => {
    const none = { type: ['number', 'string'], maximum: -1, exclusiveMinimum: -0.5 };
    expect(at(none, '').filter((c) => c.trim() !== '')).toEqual(['"']);
  });
});

describe('what is refused, and what is left to the check', () => {
  it.each([
    [{ properties: { a: { $ref: '#/$defs/none' } } }, '#/properties/a: $ref'],
    [{ allOf: [{ $ref: '#' }] }, '#: $ref'],
    [{ items: [{}] }, '#: items'],
    [{ $ref: 'other.json' }, '#: $ref'],
    [{ $ref: 'https://example.org/x#/a' }, '#: $ref'],
    [{ $defs: { a: { $id: 'x' }, b: { $id: 'x' } } }, '#/$defs/b: $id'],
    [{ pattern: '^(?!a)b|c' }, 'pattern'],
    [{ pattern: 'a(?=b)' }, 'pattern'],
    [{ pattern: '(a)\\1' }, 'pattern'],
    [{ pattern: '^a{9999}$' }, 'pattern'],
    [{ type: 'string', pattern: '^(a|b)*c(a|b){12}$', maxLength: 100_000 }, 'pattern'],
    [
      { properties: { a: {} }, patternProperties: { '^(?=.*b).+$': {} }, additionalProperties: false },
      'patternProperties',
    ],
    [{ minLength: -1 }, 'minLength'],
    [{ type: 'object', required: ['a'], properties: { a: false } }, 'no value'],
    [{ $schema: 'https://example.org/mine' }, '$schema'],
    [{ type: 'object', required: ['a'], properties: { a: { $ref: '#' } } }, 'no value'],
    [{ type: 'object', if: { $ref: '#' }, else: {} }, '#/if: $ref: it leads back to itself'],
    [{ if: {}, else: { allOf: [{ $ref: '#' }] } }, '#/else/allOf/0: $ref: it leads back to itself'],
    [{ not: { $ref: '#' } }, '$ref: it leads back to itself'],
    [{ dependentSchemas: { a: { $ref: '#' } } }, '#/dependentSchemas/a: $ref: it leads back to itself'],
    [{ properties: { p: { if: { $ref: '#/properties/p' }, else: {} } } }, '#/properties/p/if: $ref: it leads back'],
    [{ if: { $ref: '#/$defs/none' }, else: {} }, '#/if: $ref'],
    [{ if: { $ref: 'https://example.org/x' }, else: {} }, '#/if: $ref'],
    [{ if: { properties: { a: { $recursiveRef: '#' } } }, else: {} }, '#/if/properties/a: $recursiveRef'],
  ])('%j', (schema, named) => {
    expect(() => createChecker(schema)).toThrow(named);
  });
  it('a schema that comes back with a value between, or to another one, is none of these', () => {
    const tree = { if: { properties: { child: { $ref: '#' } }, required: ['child'] }, else: { required: ['name'] } };
    const { check } = createChecker(tree);
    expect([check('{"child":{}}'), check('{"child":{"name":1}}')]).toEqual([expect.any(String), null]);
    const most = { $ref: '#/$defs/a' };
    expect(createChecker({ $defs: { a: { minimum: 1 } }, allOf: [{ if: most, else: most }] }).check('2')).toBeNull();
  });
  it('a condition that always holds, or never, is what it leads to', () => {
    const of = (schema: string): ReturnType<typeof createChecker> => createChecker(JSON.parse(schema));
    for (const nobody of ['{"if":{},"then":false}', '{"if":{"title":"any"},"then":false}', '{"if":false,"else":false}'])
      expect(() => of(nobody)).toThrow('#: no value keeps to this schema');
    const { check, checked } = of('{"if":true,"then":{"type":"integer"},"else":false}');
    expect([checked, check('1'), check('"1"')]).toEqual([[], null, expect.any(String)]);
    expect(of('{"if":false,"then":false}').check('1')).toBeNull();
  });
  it('what leads on for ever, or nearly', () => {
    const chain = Object.fromEntries(
      Array.from({ length: 15_000 }, (_, i) => [`d${i}`, { allOf: [{ $ref: `#/$defs/d${i + 1}` }] }]),
    );
    const deep = { $ref: '#/$defs/d0', $defs: { ...chain, d15000: { type: 'integer' } } };
    expect(() => createChecker(deep)).toThrow('$ref: more than 500');
    let nested: object = {};
    for (let i = 0; i < 300; i++) nested = { items: nested };
    expect(() => createChecker(nested)).toThrow('nested deeper');
    const cases = { anyOf: Array.from({ length: 60 }, (_, i) => ({ properties: { [`p${i}`]: { const: i } } })) };
    expect(() => createChecker({ allOf: [cases, cases] })).toThrow('#: anyOf');
  });
  it('a member called __proto__ is one like others', () => {
    const checker = createChecker(
      JSON.parse(
        '{"properties":{"__proto__":{"type":"integer"}},"required":["__proto__"],"additionalProperties":false}',
      ),
    );
    expect(['{"__proto__":1}', '{"__proto__":"a"}', '{}'].map((t) => checker.check(t) === null)).toEqual([
      true,
      false,
      false,
    ]);
  });
  it('an empty list contains nothing, whatever else is said of lists', () => {
    const checker = createChecker({ type: 'array', prefixItems: [{ type: 'null' }], contains: { type: 'null' } });
    expect(['[]', '[null]'].map((t) => checker.check(t) === null)).toEqual([false, true]);
  });
  it('a member without a name is required like others', () => {
    for (const schema of [
      { required: [''] },
      { anyOf: [{ required: ['a', ''] }] },
      { dependentRequired: { b: [''] } },
    ]) {
      const { check } = createChecker({ allOf: [schema, { not: { type: 'null' } }] });
      expect([check('{"b":1}'), check('{"a":1,"b":1,"":1}')]).toEqual([expect.any(String), null]);
    }
  });
  it('keywords of the check are named with their places', () => {
    const schema = { properties: { a: { not: { const: 1 } }, b: { uniqueItems: true } }, oneOf: [{}, { minimum: 3 }] };
    expect(new Set(compileSchema(schema).checked)).toEqual(
      new Set(['#/properties/a/not', '#/properties/b/uniqueItems', '#/oneOf']),
    );
    const { check } = createChecker(schema);
    expect(check('{"a": 2, "b": [1]}')).toMatch(/oneOf/);
    expect(check('{"a": 1')).toBe('no JSON');
    expect(check('{"a": 2, "a": 3}')).toBe('no JSON'); // equal names
  });
});
