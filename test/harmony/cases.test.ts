// This project's own conversations against OpenAI's harmony crate (test/golden/harmony/make_cases.mjs): token by token
// what is rendered, message by message what is parsed.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { parseTokens } from '../../src/harmony/parse.js';
import { type DeveloperText, developerText, type SystemText, systemText } from '../../src/harmony/prompt-text.js';
import { type AnalysisRule, renderConversation, renderPrompt } from '../../src/harmony/render.js';
import { tokenizerFromRanks } from '../../src/harmony/tokenizer.js';
import type { Message } from '../../src/harmony/types.js';
import { o200kRanks } from './o200k.js';

interface Rendered {
  readonly name: string;
  readonly system?: SystemText;
  readonly developer?: DeveloperText;
  readonly messages: readonly Message[];
  readonly rule?: AnalysisRule;
  /** The conversation as it stands, without a generation prompt. */
  readonly whole?: boolean;
  readonly ids: readonly number[];
}
interface Parsed {
  readonly name: string;
  readonly completion: boolean;
  readonly ids: readonly number[];
  readonly messages: readonly Message[];
}
const cases = JSON.parse(readFileSync(join(packageRoot, 'test', 'golden', 'harmony', 'cases.json'), 'utf8')) as {
  readonly rendered: readonly Rendered[];
  readonly parsed: readonly Parsed[];
};
const tokenizer = tokenizerFromRanks(o200kRanks());
afterAll(() => tokenizer.close());

test('there are as many cases as were made', () => {
  expect([cases.rendered.length, cases.parsed.length]).toEqual([25, 9]);
});

test.each(cases.rendered)('rendered: $name', ({ system, developer, messages, rule = 'first-final', whole, ids }) => {
  const all: Message[] = [
    ...(system ? [{ role: 'system', content: systemText(system) } as const] : []),
    ...(developer ? [{ role: 'developer', content: developerText(developer) } as const] : []),
    ...messages,
  ];
  const render = whole ? renderConversation : renderPrompt;
  const got = [...render({ messages: all }, tokenizer, { analysis: rule })];
  expect(tokenizer.decode(got)).toBe(tokenizer.decode(ids));
  expect(got).toEqual(ids);
});

test.each(cases.parsed)('parsed: $name', ({ ids, completion, messages }) => {
  const told = parseTokens(ids, tokenizer, { completion }).map(({ terminator, ...m }) => m);
  expect(told).toEqual(messages);
});
