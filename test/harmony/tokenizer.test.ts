// The tokenizer against npm tiktoken's o200k_base, token by token; and what loading refuses.
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CheckpointError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { loadTokenizer, tokenizerFromJson, tokenizerFromRanks } from '../../src/harmony/tokenizer.js';
import { O200K_PATTERN, tokenizerJson, writeTokenizerJson } from '../../src/harmony/tokenizer-file.js';
import type { Tokenizer } from '../../src/harmony/types.js';
import { corpus, edgeCases, LANGUAGES } from './corpus.mjs';
import { mergesOfRanks, o200kOracle, o200kPattern, o200kRanks } from './o200k.js';
import { smallVocabulary } from './small.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-tokenizer-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

// biome-ignore lint/suspicious/noExplicitAny: tokenizer.json, damaged in every way
type AnyJson = any;

const same = (a: ArrayLike<number>, b: ArrayLike<number>): boolean => {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
};

describe('o200k', () => {
  const oracle = o200kOracle();
  let byRank: Tokenizer;
  let byFile: Tokenizer;
  beforeAll(() => {
    const ranks = o200kRanks();
    byRank = tokenizerFromRanks(ranks, { vocabSize: 201088 });
    const merges = mergesOfRanks(ranks);
    expect(merges.length).toBe(446_189); // the released file's count
    mkdirSync(join(folder, 'o200k'));
    writeTokenizerJson(join(folder, 'o200k', 'tokenizer.json'), { tokens: ranks, merges });
    byFile = loadTokenizer(join(folder, 'o200k'));
  });
  afterAll(() => {
    oracle.free();
    byRank.close();
    byFile.close();
  });

  const differences = (texts: readonly string[]): { bytes: number; differing: string[] } => {
    let bytes = 0;
    const differing: string[] = [];
    for (const text of texts) {
      bytes += Buffer.byteLength(text);
      const wanted = oracle.encode_ordinary(text);
      if (!same(byRank.encode(text), wanted) || !same(byFile.encode(text), wanted)) differing.push(text.slice(0, 80));
    }
    return { bytes, differing };
  };

  test('what is loaded is the released tokenizer.json, byte for byte', () => {
    const bytes = readFileSync(join(folder, 'o200k', 'tokenizer.json'));
    expect(bytes.length).toBe(27_868_174);
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(
      '0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3',
    ); // gpt-oss-20b, revision 6cee5e8
  });

  test('is the pattern of the reference', () => expect(O200K_PATTERN).toBe(o200kPattern));

  test("has gpt-oss's control ids", () => {
    const wanted = {
      '<|startoftext|>': 199998,
      '<|endoftext|>': 199999,
      '<|return|>': 200002,
      '<|constrain|>': 200003,
      '<|channel|>': 200005,
      '<|start|>': 200006,
      '<|end|>': 200007,
      '<|message|>': 200008,
      '<|call|>': 200012,
      '<|endofprompt|>': 200018,
    };
    expect(byRank.special).toMatchObject(wanted);
    expect(byFile.special).toEqual(byRank.special);
    expect([byFile.vocabSize, byRank.vocabSize]).toEqual([200019, 201088]);
  });

  test('no difference over 10 MB of English, code and nine other languages', () => {
    let bytes = 0;
    for (const [name, texts] of corpus(packageRoot)) {
      const part = differences(texts);
      expect(part.differing, name).toEqual([]);
      if (LANGUAGES.includes(name)) expect(part.bytes).toBeGreaterThan(0.6e6);
      bytes += part.bytes;
    }
    expect(bytes).toBeGreaterThan(10e6);
  }, 240_000);

  test('no difference for any assigned code point, alone and in context', () => {
    const texts: string[] = [];
    for (let first = 0; first < 0x110000; first += 64) {
      // planes of nothing: their edges only
      if (first >= 0x32400 && first < 0xe0000 && first % 0x1000 !== 0xfc0) continue;
      if (first >= 0xe0200 && first % 0x1000 !== 0xfc0) continue;
      let text = '';
      for (let c = first; c < first + 64; c++) {
        if (c >= 0xd800 && c <= 0xdfff) continue;
        const ch = String.fromCodePoint(c);
        text += `${ch} a${ch}B ${ch}'S${ch}1\n`;
      }
      texts.push(text);
    }
    expect(differences(texts).differing).toEqual([]);
  }, 240_000);

  test('lone surrogates are U+FFFD', () => {
    for (const text of ['\ud800', 'a\udc00b', '\udc00\ud800', '\ud83d\ude00\ud83d'])
      expect(same(byRank.encode(text), oracle.encode_ordinary(text))).toBe(true);
  });

  test('text is never a control token', () => {
    for (const name of Object.keys(byRank.special)) {
      for (const text of [name, `a${name}b`, `${name}${name}`]) {
        const ids = [...byRank.encode(text)];
        expect(ids.some((id) => byRank.isSpecial(id))).toBe(false);
        expect(byRank.decode(ids)).toBe(text);
      }
    }
  });

  test('decode gives the text back; no id makes it throw', () => {
    for (const text of edgeCases(2000, 17)) expect(byRank.decode(byRank.encode(text))).toBe(text.toWellFormed());
    expect(byRank.decode([200006, 173781, 200008])).toBe('<|start|>assistant<|message|>');
    expect(byRank.decode([200500, -1, 1e9, Number.NaN, 0.5])).toContain('<|reserved_200500|>');
    expect(byRank.bytes(200006).length + byRank.bytes(-1).length + byRank.bytes(1e9).length).toBe(0);
  });

  test('a long piece takes n log n, not n²', () => {
    const seconds = (n: number): number => {
      const text = 'abcdefghijklmnopqrstuvwxyz'.repeat(n / 26);
      const start = process.cpuUsage();
      expect(byRank.encode(text).length).toBeGreaterThan(n / 30);
      return process.cpuUsage(start).user / 1e6;
    };
    seconds(26_000);
    expect(seconds(2_600_000)).toBeLessThan(20); // quadratic would take hours
    expect(byRank.encode(' '.repeat(1_000_000)).length).toBeLessThan(20_000);
  });
});

describe('tokenizer.json', () => {
  const own = smallVocabulary();
  const good = JSON.stringify(JSON.parse(tokenizerJson(own))); // compact: damage hits more than indentation
  const changed = (change: (json: AnyJson) => void): string => {
    const json = JSON.parse(good);
    change(json);
    return JSON.stringify(json);
  };
  const codeOf = (text: string): string => {
    try {
      tokenizerFromJson(text).close();
    } catch (e) {
      if (e instanceof CheckpointError) return e.code;
      throw e;
    }
    return 'loads';
  };

  test("a small own vocabulary loads, encodes by its merges and has harmony's control tokens on top", () => {
    const file = join(folder, 'small.json');
    writeTokenizerJson(file, own);
    const t = loadTokenizer(file, { vocabSize: 320 });
    expect(t.decode(t.encode('hello hello <|end|> — 中'))).toBe('hello hello <|end|> — 中');
    expect([...t.encode('hello')]).toEqual([own.tokens.findIndex((b) => Buffer.from(b).toString() === 'hello')]);
    expect(t.special['<|start|>']).toBe(own.tokens.length + 8);
    expect(t.isSpecial(own.tokens.length)).toBe(true);
    expect(t.vocabSize).toBe(320);
    expect(t.digest).toBe(tokenizerFromJson(readFileSync(file, 'utf8')).digest);
    t.close();
    t.close();
  });

  test('merges may be strings, and control tokens may stand in the vocabulary too', () => {
    expect(
      codeOf(
        changed((j) => {
          j.model.merges = j.model.merges.map((m: string[]) => m.join(' '));
        }),
      ),
    ).toBe('loads');
    expect(
      codeOf(
        changed((j) => {
          for (const a of j.added_tokens) j.model.vocab[a.content] = a.id;
        }),
      ),
    ).toBe('loads');
  });

  const bad: [string, string, (json: AnyJson) => void][] = [
    [
      'a gap in the ids',
      'tokenizer_gap',
      (j) => {
        delete j.model.vocab.hello;
      },
    ],
    [
      'a gap before the control ids',
      'tokenizer_gap',
      (j) => {
        for (const a of j.added_tokens) a.id += 5;
      },
    ],
    [
      'an id given twice',
      'tokenizer_duplicate',
      (j) => {
        j.model.vocab.hello = j.model.vocab.he;
      },
    ],
    [
      'a control id that is an ordinary one',
      'tokenizer_duplicate',
      (j) => {
        j.added_tokens[0].id = 5;
      },
    ],
    [
      'a control id given twice',
      'tokenizer_duplicate',
      (j) => {
        j.added_tokens[1].id = j.added_tokens[0].id;
      },
    ],
    [
      'a control token named twice',
      'tokenizer_duplicate',
      (j) => {
        j.added_tokens[1].content = '<|startoftext|>';
      },
    ],
    [
      'a merge of an unknown token',
      'tokenizer_merge',
      (j) => {
        j.model.merges.push(['zz', 'q']);
      },
    ],
    [
      'a merge into an unknown token',
      'tokenizer_merge',
      (j) => {
        j.model.merges.push(['z', 'q']);
      },
    ],
    [
      'a merge named twice',
      'tokenizer_merge',
      (j) => {
        j.model.merges.push(j.model.merges[0]);
      },
    ],
    [
      'a merge of three',
      'tokenizer_merge',
      (j) => {
        j.model.merges[0] = ['h', 'e', 'l'];
      },
    ],
    [
      'a merge that is a number',
      'tokenizer_merge',
      (j) => {
        j.model.merges[0] = 7;
      },
    ],
    [
      'no merges',
      'tokenizer_merge',
      (j) => {
        j.model.merges = [];
      },
    ],
    [
      'another model',
      'tokenizer_unsupported',
      (j) => {
        j.model.type = 'Unigram';
      },
    ],
    [
      'a normalizer',
      'tokenizer_unsupported',
      (j) => {
        j.normalizer = { type: 'NFC' };
      },
    ],
    [
      'byte fallback',
      'tokenizer_unsupported',
      (j) => {
        j.model.byte_fallback = true;
      },
    ],
    [
      'a prefix space',
      'tokenizer_unsupported',
      (j) => {
        j.pre_tokenizer.pretokenizers[1].add_prefix_space = true;
      },
    ],
    [
      'no pre-tokenizer',
      'tokenizer_unsupported',
      (j) => {
        j.pre_tokenizer = null;
      },
    ],
    [
      'another pattern',
      'tokenizer_pattern',
      (j) => {
        j.pre_tokenizer.pretokenizers[0].pattern.Regex = '\\s+|\\S+';
      },
    ],
    [
      'no <|call|>',
      'tokenizer_control_missing',
      (j) => {
        j.added_tokens[14].content = '<|other|>';
      },
    ],
    [
      'a missing byte',
      'tokenizer_bytes_missing',
      (j) => {
        const id = j.model.vocab['!'];
        delete j.model.vocab['!'];
        j.model.vocab['he!he!'] = id;
      },
    ],
    [
      'a token outside the byte alphabet',
      'tokenizer_alphabet',
      (j) => {
        const id = j.model.vocab.hello;
        delete j.model.vocab.hello;
        j.model.vocab['\u4e2d'] = id;
        j.model.merges = j.model.merges.filter((m: string[]) => m.join('') !== 'hello');
      },
    ],
    [
      'an empty token',
      'tokenizer_alphabet',
      (j) => {
        j.model.vocab[''] = 400;
      },
    ],
    [
      'an id that is text',
      'tokenizer_type',
      (j) => {
        j.model.vocab.hello = '7';
      },
    ],
    [
      'an id below zero',
      'tokenizer_type',
      (j) => {
        j.model.vocab.hello = -1;
      },
    ],
    [
      'an enormous id',
      'tokenizer_type',
      (j) => {
        j.model.vocab.hello = 1e9;
      },
    ],
    [
      'a vocabulary that is a list',
      'tokenizer_type',
      (j) => {
        j.model.vocab = [];
      },
    ],
    [
      'no added tokens',
      'tokenizer_type',
      (j) => {
        delete j.added_tokens;
      },
    ],
    ['a root that is a list', 'tokenizer_type', () => {}],
    [
      'an added token that is not special',
      'tokenizer_unsupported',
      (j) => {
        j.added_tokens[3].special = false;
      },
    ],
    [
      'an added token that does not say',
      'tokenizer_unsupported',
      (j) => {
        delete j.added_tokens[3].special;
      },
    ],
    [
      'an ordinary token added after the control tokens',
      'tokenizer_unsupported',
      (j) => {
        j.added_tokens.push({
          id: j.added_tokens.length + Object.keys(j.model.vocab).length,
          content: 'kg',
          special: false,
        });
      },
    ],
    ...(
      [
        ['the file', (j) => j],
        ['the model', (j) => j.model],
        ['an added token', (j) => j.added_tokens[0]],
        ['a step of the pre-tokenizer', (j) => j.pre_tokenizer.pretokenizers[0]],
      ] as [string, (json: AnyJson) => AnyJson][]
    ).map(([where, at]): [string, string, (json: AnyJson) => void] => [
      `an unknown key of ${where}`,
      'tokenizer_unsupported',
      (j) => {
        at(j).next_years_setting = 1;
      },
    ]),
  ];
  test.each(bad)('refuses %s: %s', (name, code, change) => {
    expect(codeOf(name === 'a root that is a list' ? '[]' : changed(change))).toBe(code);
  });

  test('refuses what is no file, no JSON, too large or does not fit the checkpoint', () => {
    const code = (act: () => unknown): string => {
      try {
        act();
      } catch (e) {
        if (e instanceof CheckpointError) return e.code;
        throw e;
      }
      return 'loads';
    };
    expect(code(() => loadTokenizer(join(folder, 'absent')))).toBe('tokenizer_missing');
    expect(code(() => loadTokenizer(folder))).toBe('tokenizer_missing');
    writeFileSync(join(folder, 'cut.json'), good.slice(0, good.length / 2));
    expect(code(() => loadTokenizer(join(folder, 'cut.json')))).toBe('tokenizer_json');
    expect(code(() => tokenizerFromJson('['.repeat(200_000)))).toBe('tokenizer_json');
    expect(code(() => tokenizerFromJson(good, 'x', { vocabSize: 10 }))).toBe('tokenizer_vocab_size');
    expect(code(() => tokenizerFromJson(''))).toBe('tokenizer_json');
    expect(() => loadTokenizer('/dev/null')).toThrow(expect.objectContaining({ code: 'file_not_regular' }));
  });

  test('writing refuses tables that would not load, and leaves no file', () => {
    const file = join(folder, 'never.json');
    expect(() => writeTokenizerJson(file, { ...own, merges: [...own.merges, [0, 99_999]] })).toThrow(CheckpointError);
    expect(() => readFileSync(file)).toThrow();
  });

  test('fuzz: 20,000 damaged files load or are refused with a typed error', () => {
    const cases = 20_000;
    const { damage } = damager(good);
    const seen = new Map<string, number>();
    for (let i = 0; i < cases; i++) {
      const code = codeOf(damage(i)); // anything but a CheckpointError fails the test
      seen.set(code, (seen.get(code) ?? 0) + 1);
    }
    expect([...seen.values()].reduce((a, b) => a + b)).toBe(cases);
    expect(seen.get('loads') ?? 0).toBeLessThan(cases / 2);
    expect(seen.size).toBeGreaterThan(8); // the damage reaches most of the checks
  }, 240_000);
});

/**
 * Damages the text (cuts, flipped characters, repeats) or the tree (values replaced, removed, copied from elsewhere).
 */
function damager(good: string): { damage(i: number): string } {
  const values = [
    null,
    true,
    false,
    0,
    -1,
    1.5,
    1e300,
    1048575,
    '',
    'x',
    '中',
    'h e',
    [],
    {},
    [[]],
    ['h', 'e'],
    { id: 3 },
    '__proto__',
  ];
  return {
    damage(seed) {
      let state = (seed * 2654435761 + 12345) >>> 0;
      const below = (n: number): number => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return Math.floor((state / 2 ** 32) * n);
      };
      if (below(4) === 0) {
        const at = below(good.length);
        const kind = below(4);
        if (kind === 0) return good.slice(0, at);
        if (kind === 1) return good.slice(0, at) + String.fromCharCode(below(256)) + good.slice(at + 1);
        if (kind === 2) return good.slice(0, at) + good.slice(at + 1 + below(20));
        return good.slice(0, at) + good.slice(below(at + 1), at) + good.slice(at);
      }
      const json = JSON.parse(good);
      for (let n = 1 + below(2); n > 0; n--) {
        let node: AnyJson = json;
        let parent: AnyJson = null;
        let key = '';
        for (let depth = 0; depth < 1 + below(6) && typeof node === 'object' && node !== null; depth++) {
          const keys = Object.keys(node);
          if (keys.length === 0) break;
          parent = node;
          key = keys[below(keys.length)] ?? '';
          node = node[key];
        }
        if (parent === null) continue;
        const kind = below(4);
        if (kind === 0) delete parent[key];
        else if (kind === 1) parent[key] = values[below(values.length)];
        else if (kind === 2) {
          const keys = Object.keys(parent);
          parent[key] = parent[keys[below(keys.length)]!];
        } else if (typeof node === 'number') parent[key] = node + below(5) - 2;
        else if (typeof node === 'string') parent[key] = `${node.slice(0, below(node.length + 1))}e`;
        else parent[key] = values[below(values.length)];
      }
      return JSON.stringify(json);
    },
  };
}
