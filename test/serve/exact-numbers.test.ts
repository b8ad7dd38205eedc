// Numbers of a schema that JavaScript has none for: bounds go inwards, others are refused by name.
import { describe, expect, it } from 'vitest';
import { parseJson } from '../../src/base/json.js';
import { withExactNumbers } from '../../src/serve/exact-numbers.js';

const read = (json: string): object => withExactNumbers(parseJson(json) as object, 'response_format');

describe('numbers of a schema', () => {
  it.each([
    ['{"maximum":9223372036854775807}', { maximum: 2 ** 63 - 1024 }],
    ['{"minimum":-9223372036854775809}', { minimum: 1024 - 2 ** 63 }],
    ['{"minimum":9007199254740993}', { minimum: 9007199254740994 }],
    ['{"exclusiveMaximum":18446744073709551615}', { exclusiveMaximum: 2 ** 64 - 2048 }],
    ['{"const":null,"default":9007199254740993,"maximum":1.50e1}', { const: null, default: null, maximum: 15 }],
    ['{"properties":{"a":{"maximum":9007199254740995}}}', { properties: { a: { maximum: 9007199254740994 } } }],
    // Members that are called as keywords are.
    [
      '{"properties":{"default":{"maximum":9007199254740995},"const":{"minimum":9007199254740993}}}',
      { properties: { default: { maximum: 9007199254740994 }, const: { minimum: 9007199254740994 } } },
    ],
    [
      '{"properties":{"properties":{"examples":[9007199254740993]}}}',
      { properties: { properties: { examples: [null] } } },
    ],
    ['{"enum":[1.0,10e-1,9007199254740992,-0.0,1e300]}', null],
  ])('%s', (json, wanted) => {
    expect(read(json)).toEqual(wanted ?? JSON.parse(json));
  });
  it('a bound as it is written is within the one that was asked for', () => {
    for (let at = 2n ** 63n - 3000n; at < 2n ** 63n + 3000n; at += 37n) {
      const { maximum, minimum } = read(`{"maximum":${at},"minimum":${at}}`) as Record<'maximum' | 'minimum', number>;
      for (const n of [maximum, minimum]) {
        const far = BigInt(n) - at;
        expect(far < 4096n && far > -4096n).toBe(true);
      }
      expect([BigInt(String(maximum)) <= at, BigInt(maximum) <= at]).toEqual([true, true]);
      expect([BigInt(String(minimum)) >= at, BigInt(minimum) >= at]).toEqual([true, true]);
    }
  });
  it.each([
    ['{"enum":[1,9007199254740993]}', '#/enum/: 9007199254740993 cannot'],
    ['{"const":1e400}', '#/const: 1e400'],
    ['{"properties":{"a":{"const":{"maximum":9007199254740993}}}}', '#/properties/a/const/maximum'],
    ['{"properties":{"default":{"const":9007199254740993}}}', '#/properties/default/const'],
    ['{"multipleOf":0.1000000000000000055511151231257827}', '#/multipleOf'],
    ['{"maximum":0.1000000000000000055511151231257827}', '#/maximum'],
    ['{"minLength":9007199254740993}', '#/minLength'],
    ['{"not":{"maximum":9223372036854775807}}', '#/not/maximum'],
  ])('%s is refused', (json, says) => {
    expect(() => read(json)).toThrow(says);
    expect(() => read(json)).toThrow(expect.objectContaining({ status: 400, code: 'schema_unsupported' }));
  });
});
