// JSON as it was written: what JSON.parse changes in silence is refused, or had as text.
import { describe, expect, it } from 'vitest';
import { hasLoneSurrogate, isRounded, jsonText, parseJson, withoutNulls } from '../../src/base/json.js';

describe('the text of a value', () => {
  it.each([
    ['a number past 2^53', '{"a":9007199254740993}'],
    ['a fraction of zero', '{"a":1.0}'],
    ['an exponent', '{"a":1e5,"b":-0}'],
    ['too many digits', '{"a":0.1000000000000000055511151231257827}'],
    ['too large', '{"a":1e400}'],
    ['keys that look like numbers', '{"2":"b","1":"a"}'],
    ['such a key after others', '{"b":1,"0":2}'],
    ['inside', '{"x":[{"y":{"10":1,"9":[1.50]}}]}'],
    ['__proto__', '{"__proto__":{"1":1,"0":2}}'],
    ['quotes and brackets in strings', '{"a\\"}{":"]\\\\","b":1.0}'],
  ])('%s', (_, text) => {
    const spaced = text.replaceAll(/([{:,])(?=["\d[{-])/g, '$1 ');
    expect(isRounded(parseJson(text))).toBe(true);
    expect(jsonText(parseJson(text))).toBe(text);
    if (!text.includes('}{')) expect(jsonText(parseJson(spaced))).toBe(text);
  });

  it('is what JSON.stringify writes where nothing is lost', () => {
    for (const v of [{}, [], { a: [1, 2.5, -3, { b: 'é\n' }], c: true, 0: 'x' }, 'x', 7, [[[]]], { '': 0 }]) {
      const value = parseJson(JSON.stringify(v));
      expect(value).toEqual(v);
      expect(isRounded(value)).toBe(false);
      expect(jsonText(value)).toBe(JSON.stringify(v));
    }
  });

  it('has no null members, and whole 64-bit integers', () => {
    expect(jsonText(parseJson('{"a":null,"b":[null,1.0],"c":{"d":null}}'))).toBe('{"b":[null,1.0],"c":{}}');
    expect(jsonText({ a: 2n ** 60n, b: null })).toBe('{"a":1152921504606846976}');
  });
});

it.each(['{"a":1,"a":2}', '[{"b":{"c":1,"c":1}}]', '{"a":1,"\\u0061":2}'])('two equal keys: %s', (text) => {
  expect(() => parseJson(text)).toThrow(/twice/);
});
it('deep nesting is an error, not a crash', () => {
  expect(() => parseJson('['.repeat(100_000) + ']'.repeat(100_000))).toThrow(SyntaxError);
  expect(() => parseJson('{"a":')).toThrow(SyntaxError);
});

it('null members go, entries of lists and a default that may be null stay', () => {
  const dropped: string[] = [];
  const value = {
    a: null,
    b: [null, { c: null, d: 1 }],
    e: { type: ['string', 'null'], default: null },
    f: { default: null },
  };
  expect(withoutNulls(value, (path) => dropped.push(path.join('.')))).toEqual({
    b: [null, { d: 1 }],
    e: { type: ['string', 'null'], default: null },
    f: {},
  });
  expect(dropped).toEqual(['a', 'b.1.c', 'f.default']);
  const none = { a: [{ b: 1 }] };
  expect(withoutNulls(none)).toBe(none);
  const rounded = parseJson('{"a":{"x":1.0,"y":null}}');
  expect(jsonText(withoutNulls(rounded))).toBe('{"a":{"x":1.0}}');
});

it('half of a surrogate pair is found wherever it stands', () => {
  for (const bad of ['a\ud800', { a: ['\udc00b'] }, { '\ud800': 1 }]) expect(hasLoneSurrogate(bad)).toBe(true);
  expect(hasLoneSurrogate({ a: ['🌊', { b: 'ok' }] })).toBe(false);
});
