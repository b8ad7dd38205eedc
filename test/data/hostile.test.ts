// Files as they are found: what `auto` makes of rows that may be two things or none, and of bytes that are not what
// they seem. Each is read right, or refused by a code and a line that says what to do.
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateRawSync, gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { TemperError } from '../../src/base/errors.js';
import { checkFile, type FileCheck } from '../../src/data/check.js';
import { type LoadContext, loadDataset } from '../../src/data/load.js';
import { rowsOf } from '../../src/data/rows.js';
import { convertRows } from '../../src/train/convert-data.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-hostile-'));
afterAll(() => rmSync(dir, { recursive: true }));
const context: LoadContext = {
  tokenizer: null,
  vocabSize: 2 ** 31,
  maxTokens: 1024,
  loss: { analysis: 1, commentary: 1, final: 1 },
};
let count = 0;
async function checked(bytes: Buffer | string, name = 'rows.jsonl'): Promise<FileCheck | TemperError> {
  const path = join(dir, `${count++}-${name}`);
  writeFileSync(path, bytes);
  try {
    return await checkFile({ path, format: 'auto' }, context);
  } catch (e) {
    expect(e).toBeInstanceOf(TemperError);
    expect((e as TemperError).message).not.toMatch(/[\n\0]/);
    expect((e as TemperError).exitCode).toBe(2);
    return e as TemperError;
  }
}
/** `FORMAT GOOD/ROWS FIRST CODE`, or the code of the whole. */
const said = (c: FileCheck | TemperError): string =>
  c instanceof TemperError
    ? c.code
    : `${c.format} ${c.rows - c.badRows}/${c.rows}${c.errors[0] ? ` ${c.errors[0].code}` : ''}`;

const text = (t = 'a'): string => `${JSON.stringify({ text: t })}\n`;
const utf16be = (t: string): Buffer => Buffer.from(t, 'utf16le').swap16();
/** One stored block. @param dictionary its number; 0: none */
function zst(bytes: Buffer | string, dictionary = 0): Buffer {
  const body = Buffer.from(bytes);
  const block = (body.length << 3) | 1;
  const head = [0x28, 0xb5, 0x2f, 0xfd, dictionary > 0 ? 0x21 : 0x20, ...(dictionary > 0 ? [dictionary] : [])];
  return Buffer.concat([Buffer.from([...head, body.length, block & 255, block >> 8, 0]), body]);
}
const skipped = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
const user = { role: 'user', content: 'q' };
const assistant = { role: 'assistant', content: 'a' };

describe('rows that may be two things, or none', () => {
  it.each<[string, unknown, string]>([
    ['alpaca beside chat', { instruction: 'i', output: 'o', messages: [user, assistant] }, 'format_ambiguous'],
    ['alpaca with columns that are null', { instruction: 'i', output: 'o', messages: null }, 'alpaca 1/1'],
    ['alpaca with a field of its own', { instruction: 'i', output: 'o', source: 'x' }, 'alpaca 0/1 bad_row'],
    ['chat with text of a template', { messages: [user, assistant], text: 'x' }, 'format_ambiguous'],
    [
      'sharegpt in capitals',
      {
        conversations: [
          { from: 'Human', value: 'q' },
          { from: 'GPT', value: 'a' },
        ],
      },
      'sharegpt 1/1',
    ],
    ['sharegpt of a narrator', { conversations: [{ from: 'narrator', value: 'q' }] }, 'sharegpt 0/1 unknown_role'],
    ['sharegpt of __proto__', { conversations: [{ from: '__proto__', value: 'q' }] }, 'sharegpt 0/1 unknown_role'],
    ['sharegpt by role and content', { conversations: [user, assistant] }, 'sharegpt 1/1'],
    ['a completion of messages', { prompt: [user], completion: [assistant] }, 'completion 1/1'],
    ['a completion of half of each', { prompt: 'q', completion: [assistant] }, 'completion 0/1 bad_completion'],
    ['a pair beside a completion', { prompt: 'q', completion: 'a', chosen: 'a', rejected: 'b' }, 'format_ambiguous'],
    [
      'a pair of messages',
      { prompt: [user], chosen: [assistant], rejected: [assistant] },
      'preference 0/1 bad_preference',
    ],
    ['a question and its answer', { question: 'q', answer: 'a' }, 'format_unknown'],
    ['messages as Python prints them', { messages: "[{'role': 'user', 'content': 'q'}]" }, 'format_unknown'],
    ['messages as JSON text', { messages: JSON.stringify([user, assistant]) }, 'chat 1/1'],
    ['no messages', { messages: [] }, 'chat 0/1 bad_row'],
    ['nothing', {}, 'format_unknown'],
    ['tokens that are texts', { tokens: ['1', '2'] }, 'tokens 0/1 bad_row'],
  ])('%s', async (_, row, wanted) => {
    expect(said(await checked(`${JSON.stringify(row)}\n`))).toBe(wanted);
  });
  it.each<[string, string, string]>([
    ['texts', '["a", "b"]', 'chat 0/2 bad_row'],
    ['numbers', '[1, 2, 3]', 'chat 0/3 bad_row'],
    ['arrays', '[[{"text": "a"}]]', 'chat 0/1 bad_row'],
    ['nothing', '[]', 'chat 0/0'],
    ['a comma too many', '[{"text": "a"},]', 'text 1/2 bad_json_array'],
    ['no end', '[{"text": "a"}', 'bad_json_array'],
    ['more after its end', '[{"text": "a"}] x', 'bad_json_array'],
  ])('an array of %s', async (_, json, wanted) => {
    expect(said(await checked(json, 'rows.json'))).toBe(wanted);
  });
});

describe('bytes that are not what they seem', () => {
  const two = `${text()}${text('b')}`;
  it.each<[string, Buffer | string, string, string?]>([
    ['a byte order mark', `\ufeff${two}`, 'text 2/2'],
    ['one before an array', `\ufeff [{"text": "a"}]`, 'text 1/1', 'rows.json'],
    ['one in gzip', gzipSync(`\ufeff${two}`), 'text 2/2', 'rows.jsonl.gz'],
    ['CRLF', two.replaceAll('\n', '\r\n'), 'text 2/2'],
    ['a mark, CRLF, empty lines', `\ufeff\r\n\r\n${text()}  \r\n\t\n${text()}\r\n`, 'text 2/2'],
    ['lines of before 2001, ended by CR alone', two.replaceAll('\n', '\r'), 'chat 0/1 not_json'],
    ['empty lines alone', '\n\n \r\n', 'chat 0/0'],
    ['nothing', '', 'chat 0/0'],
    ['nothing in gzip', gzipSync(''), 'chat 0/0', 'rows.jsonl.gz'],
    ['no line end', text().trimEnd(), 'text 1/1'],
    ['UTF-16, little end first', Buffer.from(`\ufeff${two}`, 'utf16le'), 'file_kind'],
    ['UTF-16, big end first', utf16be(`\ufeff${two}`), 'file_kind'],
    ['UTF-16 without a mark', Buffer.from(two, 'utf16le'), 'file_kind'],
    ['UTF-16 in gzip', gzipSync(Buffer.from(`\ufeff${two}`, 'utf16le')), 'file_kind', 'rows.jsonl.gz'],
    ['Latin-1', Buffer.concat([Buffer.from(text()), Buffer.from('{"text": "\xe9"}\n', 'latin1')]), 'text 1/2 not_utf8'],
    ['NUL', Buffer.concat([Buffer.from(text()), Buffer.alloc(9)]), 'text 1/2 not_json'],
    ['NaN, as Python writes it', '{"tokens": [1, 2], "weights": [NaN, 1]}\n', 'chat 0/1 not_json'],
    ['one key twice', '{"text": "a", "text": "b"}\n', 'chat 0/1 not_json'],
    ['U+2028 in a text', text('a\u2028b'), 'text 1/1'],
    ['an object over several lines', JSON.stringify({ text: 'a' }, null, 1), 'chat 0/3 not_json', 'rows.json'],
    ['gzip of gzip', gzipSync(gzipSync(two)), 'file_kind', 'rows.jsonl.gz.gz'],
    ['gzip of Zstandard', gzipSync(zst(two)), 'file_kind', 'rows.gz'],
    ['Zstandard of gzip', zst(gzipSync(text())), 'file_kind', 'rows.zst'],
    ['gzip of a ZIP', gzipSync(Buffer.from('504b0304aa', 'hex')), 'file_kind', 'rows.gz'],
    ['members of gzip', Buffer.concat([gzipSync(text()), gzipSync(text('b'))]), 'text 2/2', 'rows.jsonl.gz'],
    ['a row over two members', Buffer.concat([gzipSync('{"text":'), gzipSync('"a"}\n')]), 'text 1/1', 'rows.gz'],
    ['gzip that is cut off', gzipSync(two).subarray(0, -6), 'bad_gzip', 'rows.gz'],
    ['deflate without its frame', deflateRawSync(two), 'chat 0/1 not_utf8'],
    [
      'frames, and such to skip',
      Buffer.concat([skipped, zst(text()), skipped, zst(text('b'))]),
      'text 2/2',
      'rows.zst',
    ],
    ['Zstandard with a dictionary', zst(two, 7), 'bad_zstd', 'rows.zst'],
    ['Zstandard that is cut off', zst(two).subarray(0, -3), 'bad_zstd', 'rows.zst'],
  ])('%s', async (_, bytes, wanted, name) => {
    expect(said(await checked(bytes, name))).toBe(wanted);
  });
  it('hundreds of frames, and one that needs a dictionary says so', async () => {
    const many = Buffer.concat(Array.from({ length: 300 }, (_, i) => zst(text(`${i}`))));
    expect(said(await checked(many, 'rows.zst'))).toBe('text 300/300');
    const e = (await checked(zst(text(), 7), 'rows.zst')) as TemperError;
    expect(e.message).toContain('it needs a dictionary');
  });
});

it.runIf(existsSync('/proc/self/fd'))('whatever ends a reading, the file is let go of', async () => {
  const golden = (name: string): string => join(import.meta.dirname, '../golden/data', name);
  const bad = join(dir, 'bad.jsonl.gz');
  writeFileSync(bad, gzipSync(`{"tokens": [1, 2]}\n{\n${'{"tokens": [1, 2]}\n'.repeat(2000)}`));
  const open = (): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return /golden|temper-hostile/.test(readlinkSync(`/proc/self/fd/${fd}`));
      } catch {
        return false; // the one that lists them
      }
    }).length;
  const files = ['chat.arrow', 'chat.stream.arrow', 'chat.snappy.parquet', 'chat.zstd.jsonl.zst'].map(golden);
  for (const path of [...files, bad])
    for (const format of ['text', 'tokens', 'auto']) {
      const file = { path, format };
      await loadDataset([file], context).catch(() => {});
      await convertRows({ paths: [path], format, out: join(dir, `o${count++}.jsonl`) }).catch(() => {});
      for await (const _ of rowsOf(file)) break;
      await checkFile(file, context, { onRow: () => expect.fail('enough') }).catch(() => {});
    }
  // Streams let go of theirs a moment later.
  await vi.waitFor(() => expect(open()).toBe(0), 5000);
});
