// Patterns as Python's re.fullmatch takes them, and none that runs for ever.
import { expect, it } from 'vitest';
import { PatternError, pythonPattern } from '../../src/base/python-pattern.js';

const NAME = 'model.layers.11.self_attn.q_proj';

// Every answer is CPython 3.12's (re.fullmatch(pattern, text) is not None).
it.each<[pattern: string, text: string, matches: boolean]>([
  ['q_proj', 'q_proj', true],
  ['q_proj', NAME, false],
  [String.raw`.*\.(q|k|v|o)_proj`, NAME, true],
  [String.raw`.*\.(q|k|v|o)_proj\Z`, NAME, true],
  [String.raw`\A.*q_proj$`, NAME, true],
  [String.raw`(?i).*SELF_ATTN\.[QK]_PROJ`, NAME, true],
  [String.raw`(?i:MODEL)\.layers\..*`, NAME, true],
  [String.raw`(?i:MODEL)\.LAYERS\..*`, NAME, false],
  [String.raw`(?P<where>model)\.layers\.(?P<n>\d{1,2})\..*`, NAME, true],
  [String.raw`model\.layers\.\d{3,}\..*`, NAME, false],
  [String.raw`model\.layers\.(1[0-9]|2[0-3])\.self_attn\.[a-z]_proj`, NAME, true],
  [String.raw`^(?!.*(lm_head|router)).*proj$`, NAME, true],
  [String.raw`^(?!.*(lm_head|self_attn)).*proj$`, NAME, false],
  [String.raw`model(?=\.layers).*`, NAME, true],
  [String.raw`.*(?<=attn\.)q_proj`, NAME, true],
  [String.raw`.*(?<!attn\.)q_proj`, NAME, false],
  [String.raw`(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj)))`, NAME, true],
  [String.raw`model\.\Bayers.*`, 'model.layers', false],
  [String.raw`[^.]+(\.[^.]+){4}`, NAME, true],
  [String.raw`[\w.]+`, NAME, true],
  [String.raw`[]x]+`, ']x]', true],
  [String.raw`[a\-z]+`, 'a-z', true],
  ['a{,2}b', 'aab', true],
  ['a{,2}b', 'aaab', false],
  ['a{2}', 'aa', true],
  ['a{x}', 'a{x}', true],
  ['a{}', 'a{}', true],
  ['(?#why)ab', 'ab', true],
  ['a|b|', '', true],
  ['(a|ab)(c|bcd)(d*)', 'abcd', true],
  ['x*?y??', 'xxy', true],
  [String.raw`\x61`, 'a', true],
  ['(?s).', '.', true],
  ['', '', true],
  ['.', '\n', false],
])('%s on %j: %j', (pattern, text, matches) => {
  expect(pythonPattern(pattern).matches(text)).toBe(matches);
});

it.each([
  '(',
  ')',
  '[a',
  'a**',
  '*a',
  'a{3,1}',
  'a++',
  '(?>a)',
  '(a)\\1',
  '(?(1)a|b)',
  '(?P=x)',
  '(?x)a b',
  '\\q',
  '\\',
  'a(?i)b',
  '('.repeat(5000),
  `${'('.repeat(120)}a${')'.repeat(120)}`,
  'a{2000}',
  '((a{500}){500}){500}',
  'a'.repeat(20_000),
])('refuses %.40s', (pattern) => {
  expect(() => pythonPattern(pattern)).toThrow(PatternError);
});

it.each([
  '(.*)*(.*)*(.*)*x',
  '(a+)+$',
  '(a|a)*b',
  '(a|aa)+$',
  '(.*a){20}b',
  '^(([a-z])+.)+[A-Z]([a-z])+$',
  '(?=(.*)*x)(?=(.*)*y).*',
  '(?!(a*)*b)(?<!(a*)*c)(a*)*',
  '(((a{0,10}){0,10}){0,10})',
  '((.*)*(.*)*)*',
])('%s takes no time on what it does not match', (pattern) => {
  const began = performance.now();
  pythonPattern(pattern).matches('a'.repeat(200));
  expect(performance.now() - began).toBeLessThan(20_000); // by trying, it would take years
});

it('agrees with JavaScript on 20,000 random patterns that both read alike', () => {
  let seed = 7;
  const next = (n: number): number => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return Math.floor((seed / 2147483648) * n);
  };
  const atoms = ['a', 'b', '.', '[ab]', '[^a]', String.raw`\d`, '(?:a|b)', '(a|)', '(?:ab|a)', '(?=a)', '(?!b)', '\\b'];
  const part = (): string => {
    const atom = atoms[next(atoms.length)] ?? 'a',
      plain = atom.startsWith('(?=') || atom.startsWith('(?!') || atom === '\\b';
    return atom + (plain ? '' : (['', '*', '+', '?', '{1,2}', '*?'][next(6)] ?? ''));
  };
  let matched = 0;
  for (let i = 0; i < 20_000; i++) {
    const pattern = Array.from({ length: 1 + next(4) }, part).join(next(5) === 0 ? '|' : '');
    const text = Array.from({ length: next(5) }, () => 'ab1'[next(3)] ?? '').join('');
    const wanted = new RegExp(`^(?:${pattern})$`).test(text);
    if (pythonPattern(pattern).matches(text) !== wanted) expect.fail(`${pattern} on ${text}: wanted ${wanted}`);
    if (wanted) matched++;
  }
  expect(matched).toBeGreaterThan(1000);
});
