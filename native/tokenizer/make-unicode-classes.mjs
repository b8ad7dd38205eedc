// Writes unicode_classes.inc: the character classes o200k's split pattern asks for, as the reference engine sees them.
// They are read out of npm `tiktoken` (its regex engine), so that the Unicode version is the reference's, not Node's.
// Run: node native/tokenizer/make-unicode-classes.mjs
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const { Tiktoken } = require('tiktoken');
const here = dirname(fileURLToPath(import.meta.url));

// 256 byte tokens and nothing else: what `pattern` matches comes back byte by byte, what it skips does not come back.
const byteRanks = `! 0 ${Array.from({ length: 256 }, (_, i) => Buffer.from([i]).toString('base64')).join(' ')}`;
const everything = [];
for (let c = 0; c <= 0x10ffff; c++) if (c < 0xd800 || c > 0xdfff) everything.push(c);

function matching(pattern) {
  const engine = new Tiktoken(byteRanks, {}, pattern);
  const found = new Set();
  for (let at = 0; at < everything.length; at += 65536) {
    const text = everything
      .slice(at, at + 65536)
      .map((c) => String.fromCodePoint(c))
      .join('');
    const bytes = Uint8Array.from(engine.encode_ordinary(text));
    for (const ch of Buffer.from(bytes).toString('utf8')) found.add(ch.codePointAt(0));
  }
  engine.free();
  return found;
}

const classes = [
  ['kUpper', matching('[\\p{Lu}\\p{Lt}]')],
  ['kLower', matching('\\p{Ll}')],
  ['kLetter', matching('[\\p{Lm}\\p{Lo}]')],
  ['kMark', matching('\\p{M}')],
  ['kNumber', matching('\\p{N}')],
  ['kNewline', new Set([10, 13])],
  ['kSpace', matching('\\s')],
];
const of = new Map();
for (const [name, set] of classes) for (const c of set) if (!of.has(c)) of.set(c, name);

const ranges = [];
for (let c = 0; c <= 0x10ffff; c++) {
  const name = of.get(c);
  const last = ranges.at(-1);
  if (!name) continue;
  if (last && last[2] === name && last[1] === c - 1) last[1] = c;
  else ranges.push([c, c, name]);
}
const lines = ranges.map(([a, b, name]) => `{0x${a.toString(16)}, 0x${b.toString(16)}, ${name}},`);
const rows = [];
for (let i = 0; i < lines.length; i += 5) rows.push(lines.slice(i, i + 5).join(' '));
const version = JSON.parse(readFileSync(join(dirname(require.resolve('tiktoken')), 'package.json'), 'utf8')).version;
const counts = classes.map(([name]) => `${name} ${[...of.values()].filter((n) => n === name).length}`).join(', ');
const out = join(here, 'unicode_classes.inc');
writeFileSync(
  `${out}.tmp`,
  `// Made by make-unicode-classes.mjs from tiktoken ${version}; do not edit. ` +
    `${counts}.\n// {first, last, class}; every other code point is ` +
    `kOther.\n${rows.join('\n')}\n`,
);
renameSync(`${out}.tmp`, out);
console.log(`${out}: ${ranges.length} ranges (${counts})`);
