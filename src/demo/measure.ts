// The demo's two measurements: exact match of answers, and how well the judge agrees with what is expected.

import { conversation } from '../compose/turn.js';
import type { Engine } from '../infer/engine.js';
import { type Agreement, agreementOf, type VerdictRow } from '../safeguard/agreement.js';
import type { Screen } from '../safeguard/screen.js';
import type { JudgedText, Request } from './rows.js';

export interface Answer {
  readonly analysis: string;
  readonly final: string;
  readonly finish: string;
  readonly tokens: number;
}
export interface Match {
  readonly rows: number;
  readonly final: number;
  readonly analysis: number;
  readonly share: number;
  readonly seconds: number;
  readonly tokensPerSecond: number;
  readonly answers: readonly Answer[];
}

/** The most probable answer to one prompt. */
export async function answer(
  engine: Engine,
  prompt: string,
  adapter: string | undefined,
  signal: AbortSignal,
): Promise<Answer> {
  const messages = conversation({ effort: 'medium' }, [{ role: 'user', content: prompt }]);
  for await (const event of engine.generate(
    { messages, maxTokens: 160, sampling: { temperature: 0 }, ...(adapter === undefined ? {} : { adapter }) },
    signal,
  )) {
    if (event.kind !== 'done') continue;
    const on = (channel: string): string =>
      event.messages
        .filter((m) => m.channel === channel)
        .map((m) => m.content)
        .join('\n');
    return { analysis: on('analysis'), final: on('final'), finish: event.finish, tokens: event.usage.completionTokens };
  }
  throw new Error('the engine ended a turn without its last event');
}

/** Asks every request and compares the answer with the ticket wanted, character by character. */
export async function exactMatch(
  engine: Engine,
  requests: readonly Request[],
  adapter: string | undefined,
  signal: AbortSignal,
  onRow: (done: number) => void,
): Promise<Match> {
  const began = performance.now();
  let done = 0;
  const answers = await Promise.all(
    requests.map(async (r) => {
      const given = await answer(engine, r.prompt, adapter, signal);
      onRow(++done);
      return given;
    }),
  );
  const seconds = (performance.now() - began) / 1000;
  const count = (right: (given: Answer, wanted: Request) => boolean): number =>
    requests.filter((r, i) => {
      const given = answers[i];
      return given !== undefined && given.finish === 'stop' && right(given, r);
    }).length;
  const final = count((given, wanted) => given.final === wanted.ticket);
  return {
    rows: requests.length,
    final,
    analysis: count((given, wanted) => given.analysis === wanted.analysis),
    share: final / requests.length,
    seconds,
    tokensPerSecond: answers.reduce((sum, a) => sum + a.tokens, 0) / seconds,
    answers,
  };
}

export interface JudgeQuality {
  readonly rows: number;
  readonly all: Agreement;
  readonly final: Agreement;
  readonly analysis: Agreement;
  readonly seconds: number;
}

/** Judges every text under its own policy, through the same screen that holds answers back. */
export async function judgeQuality(
  screens: ReadonlyMap<string, Screen>,
  texts: readonly JudgedText[],
  signal: AbortSignal,
  onRow: (done: number) => void,
): Promise<JudgeQuality> {
  const began = performance.now();
  let done = 0;
  const verdicts = await Promise.all(
    texts.map(async (t, i): Promise<VerdictRow> => {
      const result = await screens.get(t.policy)?.screen({ [t.channel]: t.text }, signal);
      const verdict = result?.verdicts[0];
      if (!verdict) throw new Error(`no verdict on ${t.id}: policy ${t.policy} is not loaded`);
      onRow(++done);
      return { id: t.id, line: i + 1, expect: t.expect, ...verdict };
    }),
  );
  signal.throwIfAborted();
  const on = (channel: string): Agreement => agreementOf(verdicts.filter((v) => v.channel === channel));
  return {
    rows: texts.length,
    all: agreementOf(verdicts),
    final: on('final'),
    analysis: on('analysis'),
    seconds: (performance.now() - began) / 1000,
  };
}
