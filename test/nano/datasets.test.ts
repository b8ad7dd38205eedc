// The nano datasets: the same files again from the same seed, and no sentence on both sides of the split.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { generate as generateDesk } from '../../datasets/desk/generate.mjs';
import { generate as generateDiscretion } from '../../datasets/discretion/generate.mjs';
import { generate as generateScreening } from '../../datasets/screening/generate.mjs';
import { heldoutForms } from '../../datasets/screening/heldout-forms.mjs';
import { generate as generateTickets } from '../../datasets/tickets/generate.mjs';
import { controlTokens, trainBpe } from '../../scripts/nano/bpe.mjs';
import { sizes } from '../../scripts/nano/sizes.mjs';
import { makeTokenizer } from '../../scripts/nano/tokenizer.mjs';
import * as contract from '../../src/safeguard/contract.js';

interface ChatRow {
  messages: { role: string; content: string; thinking?: string }[];
}
interface ScreenRow {
  id: string;
  policy: string;
  channel: string;
  text: string;
  expect: string | null;
}
const jsonl = (path: string): unknown[] =>
  readFileSync(new URL(`../../datasets/${path}`, import.meta.url), 'utf8')
    .trim()
    .split('\n')
    .map((l) => JSON.parse(l) as unknown);

const desk = generateDesk(sizes.desk) as { train: ChatRow[]; heldout: ChatRow[] };
const tickets = generateTickets(sizes.tickets) as { train: ChatRow[]; heldout: ChatRow[] };
interface PairRow {
  prompt: string;
  chosen: ChatRow['messages'];
  rejected: ChatRow['messages'];
}
const discretion = generateDiscretion(sizes.discretion) as { train: PairRow[]; heldout: PairRow[] };
const screening = generateScreening(sizes.screening, contract) as {
  train: ChatRow[];
  forms: ChatRow[];
  ids: ChatRow[];
  added: ChatRow[];
  heldout: ScreenRow[];
  'heldout-chat': ChatRow[];
  'heldout-forms': (ScreenRow & { form: string })[];
};

const trained = [...screening.train, ...screening.forms, ...screening.ids, ...screening.added];

const sentencesOf = (text: string): string[] =>
  text
    .split(/(?<=[.!?])\s+|\n+/u)
    .map((s) => s.trim())
    .filter((s) => s !== '');
const spoken = (row: ChatRow): string[] =>
  row.messages.flatMap((m) => [m.content, ...(m.thinking === undefined ? [] : [m.thinking])]).flatMap(sentencesOf);
const ofPair = ({ prompt, chosen, rejected }: PairRow): string[] =>
  spoken({ messages: [{ role: 'user', content: prompt }, ...chosen, ...rejected] });
/** The judged text alone: policy and contract are the same in every row by design, and a verdict is a label. */
const judgedText = (row: ChatRow): string =>
  /\nBEGIN \w+\n([\s\S]*)\nEND \w+$/u.exec(row.messages[1]?.content ?? '')?.[1] ?? '';
const judged = (row: ChatRow): string[] => sentencesOf(judgedText(row));

describe('nano datasets', () => {
  it('no sentence of a held-out file occurs in any training file', () => {
    const train = new Set([
      ...desk.train.flatMap(spoken),
      ...tickets.train.flatMap(spoken),
      ...discretion.train.flatMap(ofPair),
      ...trained.flatMap(judged),
    ]);
    const heldout = [
      ...desk.heldout.flatMap(spoken),
      ...tickets.heldout.flatMap(spoken),
      ...discretion.heldout.flatMap(ofPair),
      ...screening.heldout.flatMap((r) => sentencesOf(r.text)),
    ];
    expect(train.size).toBeGreaterThan(70_000);
    expect(heldout.length).toBeGreaterThanOrEqual(1_900);
    expect(heldout.filter((s) => train.has(s))).toEqual([]);
    expect(trained.every((r) => judged(r).length > 0)).toBe(true);
  });

  it("counts are the cards' counts, and the committed files are what the generators give", () => {
    expect([desk.train.length, desk.heldout.length]).toEqual([sizes.desk.rows, sizes.desk.heldout]);
    expect(tickets).toEqual({ train: jsonl('tickets/train.jsonl'), heldout: jsonl('tickets/heldout.jsonl') });
    expect(discretion).toEqual({ train: jsonl('discretion/train.jsonl'), heldout: jsonl('discretion/heldout.jsonl') });
    expect(desk.heldout).toEqual(jsonl('desk/heldout.jsonl'));
    expect(screening.heldout).toEqual(jsonl('screening/heldout.jsonl'));
    expect(screening['heldout-chat']).toEqual(jsonl('screening/heldout-chat.jsonl'));
    expect(screening['heldout-forms']).toEqual(jsonl('screening/heldout-forms.jsonl'));
    for (const name of ['desk', 'tickets', 'discretion', 'screening'] as const) {
      const card = readFileSync(new URL(`../../datasets/${name}/README.md`, import.meta.url), 'utf8');
      expect(card).toContain(`${sizes[name].rows} rows`);
      expect(card).toContain(`${sizes[name].heldout} rows`);
    }
    expect(screening.forms).toHaveLength(sizes.screening.forms);
    expect(screening.ids).toHaveLength(sizes.screening.ids);
    expect(screening.added).toHaveLength(sizes.screening.added);
  });

  it('the held-out screening set holds both verdicts on both channels under both policies', () => {
    const cells = new Map<string, number>();
    for (const r of screening.heldout) {
      const cell = `${r.policy} ${r.channel} ${r.expect === null ? 'allow' : 'block'}`;
      cells.set(cell, (cells.get(cell) ?? 0) + 1);
    }
    expect([...cells.keys()].sort()).toEqual([
      'contact analysis allow',
      'contact analysis block',
      'contact final allow',
      'contact final block',
      'respect analysis allow',
      'respect analysis block',
      'respect final allow',
      'respect final block',
    ]);
    expect(Math.min(...cells.values())).toBeGreaterThanOrEqual(20);
  });

  it('a held-out form is none of the training forms, and has texts of both kinds under both policies', () => {
    const rows = screening['heldout-forms'];
    expect(heldoutForms.length).toBeGreaterThanOrEqual(12);
    expect(rows).toHaveLength(heldoutForms.length * sizes.screening.perForm);
    const train = trained.map(judgedText);
    const texts = new Set(train);
    for (const { name, mark } of heldoutForms) {
      const own = rows.filter((r) => r.form === name);
      expect(own.filter((r) => !mark.test(r.text) || texts.has(r.text))).toEqual([]);
      expect(train.filter((text) => mark.test(text))).toEqual([]);
      for (const policy of ['contact', 'respect'])
        for (const violating of [true, false])
          expect(own.filter((r) => r.policy === policy && (r.expect !== null) === violating)).toHaveLength(5);
    }
  });

  it('a verdict under drawn ids cites one of its own policy, or none', () => {
    for (const row of screening.ids) {
      const [{ content: policy } = { content: '' }, , answer] = row.messages;
      const own = policy.match(/^[A-Z]\d(?=: )/gmu) ?? [];
      const cited = /: (no rule|[A-Z]\d)$/u.exec(answer?.thinking ?? '')?.[1];
      expect(own.length).toBeGreaterThan(0);
      expect([...own, 'no rule']).toContain(cited);
    }
    const violating = screening.ids.filter((r) => r.messages[2]?.content.includes('"violation":1'));
    expect(violating.length / screening.ids.length).toBeCloseTo(0.64, 1);
  });

  it('the words of each rule, as a text, break it where the policy has it and no other', () => {
    for (const words of [
      'a phone number',
      'a card number',
      'an email address',
      'a door code',
      'an insult',
      'a threat',
    ]) {
      const quoted = screening.added.filter((row) => judgedText(row) === words);
      expect(quoted.length).toBeGreaterThan(10);
      for (const { messages } of quoted) {
        const id = new RegExp(`^([A-Z]\\d): ${words}$`, 'mu').exec(messages[0]?.content ?? '')?.[1];
        expect(messages[2]?.content).toContain(id === undefined ? '"rule":null' : `"rule":"${id}"`);
      }
    }
  });

  it('a row of the golden sets is never trained on', () => {
    const train = new Set(trained.flatMap(judged));
    const golden = ['contact', 'respect'].flatMap((p) =>
      readFileSync(new URL(`../../policies/${p}/golden.jsonl`, import.meta.url), 'utf8')
        .trim()
        .split('\n')
        .map((l) => (JSON.parse(l) as ScreenRow).text),
    );
    expect(golden.length).toBeGreaterThanOrEqual(40);
    expect(golden.flatMap(sentencesOf).filter((s) => train.has(s))).toEqual([]);
  });
});

describe('own byte-pair encoding', () => {
  it('merges the most frequent pair first, never across pieces or digits', () => {
    const tokens = trainBpe([['aab aab ab 1212 1212', 1]], 259) as string[];
    expect(tokens.slice(256)).toEqual(['ab', 'aab', 'Ġaab']);
    expect(tokens.some((t) => /\d\d/u.test(t))).toBe(false);
  });
  it('control tokens keep the released order', () => {
    expect(
      (controlTokens(199998) as { id: number; content: string }[])
        .filter((t) => !t.content.includes('reserved'))
        .map((t) => `${t.id} ${t.content}`),
    ).toEqual([
      '199998 <|startoftext|>',
      '199999 <|endoftext|>',
      '200002 <|return|>',
      '200003 <|constrain|>',
      '200005 <|channel|>',
      '200006 <|start|>',
      '200007 <|end|>',
      '200008 <|message|>',
      '200012 <|call|>',
      '200018 <|endofprompt|>',
    ]);
  });
  it('models/nano and models/nano-judge carry the vocabulary that the script gives', () => {
    const made = makeTokenizer(contract) as string;
    for (const name of ['nano', 'nano-judge'])
      expect(readFileSync(new URL(`../../models/${name}/tokenizer.json`, import.meta.url), 'utf8')).toBe(made);
  });
});
