// The form of kept answers: what was put is read again, in whatever pieces it lies, and what is no record is refused.
import { describe, expect, it } from 'vitest';
import { JsonBytes, jsonOf } from '../../src/serve/json-pieces.js';
import type { StoredChat, StoredResponse } from '../../src/serve/response-store.js';
import { answerOf, recordOf } from '../../src/serve/stored-record.js';

const chat = async (): Promise<StoredChat> => ({
  id: 'chatcmpl-1',
  owner: null,
  model: 'm',
  metadata: { a: 'two\nlines' },
  completion: await jsonOf({ choices: Array.from({ length: 9000 }, (_, i) => `text\n${i} é`) }),
  messages: await jsonOf([{ role: 'user', content: 'a\r\nb' }]),
});
const said = (a: StoredChat): unknown => ({ ...a, completion: a.completion.toJSON(), messages: a.messages.toJSON() });

describe('the record of an answer', () => {
  it('is read again as it was put, in one piece or cut anywhere', async () => {
    const put = await chat(),
      record = await recordOf(put);
    expect(record.pieces.length).toBeGreaterThan(6);
    const { whole } = record;
    for (const size of [whole.length, 7, 1000]) {
      const pieces = Array.from({ length: Math.ceil(whole.length / size) }, (_, i) =>
        whole.subarray(i * size, (i + 1) * size),
      );
      expect(said(answerOf(new JsonBytes(pieces)) as StoredChat)).toEqual(said(put));
    }
  });
  it('of a response is one text', async () => {
    const put: StoredResponse = { id: 'resp_1', owner: 'ann', response: { a: 1 }, input: [{ b: '\n' }], history: [] };
    expect(answerOf(await recordOf(put))).toEqual(put);
  });
  it('is refused where it is cut short or empty, or was written by an older version', () => {
    const head = '{"id":"chatcmpl-1","owner":null,"model":"m","metadata":{}}';
    for (const text of [
      '',
      'null',
      '7',
      '{}',
      '{"id":',
      '{"id":\n{}\n[]',
      '{"id":"resp_1","owner":null,"response":5,"input":[],"history":[]}',
      '{"id":"resp_1","owner":null,"response":{},"input":[]}',
      '{"id":"chatcmpl-1","owner":null,"model":"m","metadata":{},"completion":"{}","messages":[]}',
      head,
      `${head}\n{}`,
      `${head}\n{}\n`,
      `${head}\n{"choices":[\n[]`,
      `${head}\n{}\n[{"role":"us`,
      `${head}\n{}\n[]\n[]`,
      '{"id":"chatcmpl-1","owner":1,"model":"m","metadata":{}}\n{}\n[]',
    ])
      expect(() => answerOf(new JsonBytes([Buffer.from(text)]))).toThrow(SyntaxError);
  });
});
