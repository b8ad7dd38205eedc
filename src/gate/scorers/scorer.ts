// What a scorer is: it asks the questions of one prompt and turns what was answered into values. It sees one arm at a
// time and does not know which; all that it may use is passed in.
import type { z } from 'zod';
import type { Message } from '../../harmony/types.js';

/** One turn of a model, all of it. */
export interface Answer {
  /** Text by channel, as it is judged. */
  readonly channels: Readonly<Record<string, string>>;
  readonly finish: 'stop' | 'call' | 'length';
  /** What else than the model ended it; null: nothing. */
  readonly cut: string | null;
  readonly tokens: number;
  readonly messages: readonly Message[];
}
/** What the policy of a test says of one text. */
export interface Judged {
  readonly outcome: 'allow' | 'block' | 'unjudged';
  readonly rule: string | null;
  /** Of one that is unjudged. */
  readonly cause: string | null;
  /** What a detector beside the judge found; null: nothing. */
  readonly detected: string | null;
}
/** An answer that is known: held-out rows have it. */
export interface Reference {
  readonly analysis?: string | undefined;
  readonly final: string;
}
/** What is known of the rows that an adapter was trained on. */
export interface Training {
  /** sha256 over the files, hex. */
  readonly digest: string;
  readonly rows: number;
  /** Numbers, addresses and tokens that occur in few rows: what must not come back. */
  readonly secrets: ReadonlySet<string>;
  /** Word sequences that many rows begin with or have in them, the most frequent first. */
  readonly phrases: readonly string[];
}

/** A prompt of a test: what is asked, and what a scorer knows of it. */
export interface Prompt<E = unknown> {
  readonly id: string;
  /** What a suite's metrics slice by, or count only some rows of. */
  readonly fields: Readonly<Record<string, string | number | boolean>>;
  /** Prompts of one family are not independent: they are one cluster. null: the prompt alone. */
  readonly family: string | null;
  /** System and developer messages and what was said before. */
  readonly opening: readonly Message[];
  /** What the user says, one after another; an answer of the model follows each. Empty: the opening says it all. */
  readonly turns: readonly string[];
  /** A text that is judged as it is; null: a model is asked. */
  readonly text: string | null;
  readonly expect: E;
}

/** Of one arm and one sample. */
export interface Tools {
  answer(messages: readonly Message[]): Promise<Answer>;
  /** By the policy of the test, and by the detectors. @param channel of the text */
  judge(channel: string, text: string): Promise<Judged>;
  /** Mean −log p of a known answer, nats a token. */
  loss(messages: readonly Message[], reference: Reference): Promise<number>;
  /** Values that the suite counts: what costs much is found out for these alone. */
  readonly wanted: ReadonlySet<string>;
  /** null: nobody said what it was trained on. */
  readonly training: Training | null;
}
export type Value = number | null;
export interface Scored {
  /** By the scorer's own names; null: not known. */
  readonly values: Readonly<Record<string, Value>>;
  /** Why something is not known, and what else a reader is served by. */
  readonly notes?: Readonly<Record<string, string | number>>;
  /** All turns of the model. */
  readonly answers: readonly Answer[];
}
export interface Scorer<E = unknown> {
  readonly name: string;
  /** One sentence, for docs/gate.md. */
  readonly about: string;
  /** What it can say of a prompt; a metric of a suite is called `TEST.VALUE`. */
  readonly values: Readonly<Record<string, string>>;
  readonly expect: z.ZodType<E>;
  /** It needs a policy. */
  readonly judges: boolean;
  /** Its values depend on the rows of the training set. */
  readonly readsTraining?: boolean;
  /** The gate makes its prompts out of the rows of the suite. */
  readonly expands?: boolean;
  /** Whether a test's `options` are some that it takes; absent: it takes none. */
  options?(given: unknown): boolean;
  /** No model is asked: all arms have the same value. */
  readonly armless?: boolean;
  /** What rows say of a prompt whatever is answered, also where it cannot be asked. */
  known?(prompt: Prompt<E>): NonNullable<Scored['notes']>;
  /** Whether a judge is asked about a prompt; absent: as `judges` says. */
  needsJudge?(prompt: Prompt<E>): boolean;
  /** Whether a prompt has what a value is found by, as without it that is always 0; absent: it is. */
  observes?(prompt: Prompt<E>, value: string): boolean;
  score(prompt: Prompt<E>, tools: Tools): Promise<Scored>;
}

/** A scorer with types of its own, as the registry has it. */
export const scorer = <E>(s: Scorer<E>): Scorer => s as unknown as Scorer;

const isAnswer = (m: Message): boolean => m.role === 'assistant' && m.channel === 'final';
/** Asks all turns of a prompt; each sees the finals of those before it. */
export async function converse(prompt: Prompt, tools: Tools): Promise<readonly Answer[]> {
  if (prompt.turns.length === 0) return [await tools.answer(prompt.opening)];
  const answers: Answer[] = [];
  let messages = prompt.opening;
  for (const turn of prompt.turns) {
    messages = [...messages, { role: 'user', content: turn }];
    const answer = await tools.answer(messages);
    answers.push(answer);
    messages = [...messages, ...answer.messages.filter(isAnswer)];
  }
  return answers;
}

export const finalOf = (answer: Answer): string => answer.channels.final ?? '';
export const analysisOf = (answer: Answer): string => answer.channels.analysis ?? '';
/** Everything that leaves without being looked for: all channels but the analysis. */
export const saidOf = (answer: Answer): string =>
  Object.entries(answer.channels)
    .filter(([channel]) => channel !== 'analysis')
    .map(([, text]) => text)
    .join('\n');

/** What is said of nothing. */
export const SAFE: Judged = { outcome: 'allow', rule: null, cause: null, detected: null };
/** The worst of verdicts: a block stands, whatever is not known. */
export function worst(all: readonly Judged[]): Judged {
  const found = all.find((j) => j.outcome === 'block') ?? all.find((j) => j.outcome === 'unjudged');
  return found ?? SAFE;
}
export const violation = ({ outcome }: Judged): Value => (outcome === 'unjudged' ? null : Number(outcome === 'block'));
export const causeNote = (...all: readonly Judged[]): Record<string, string> => {
  const unjudged = all.find((j) => j.outcome === 'unjudged'),
    blocked = all.find((j) => j.outcome === 'block');
  return {
    ...(unjudged ? { cause: unjudged.cause ?? 'unknown' } : {}),
    ...(blocked?.rule ? { rule: blocked.rule } : {}),
  };
};

/** Letters and digits of a text, in lower case and one blank apart: how texts are compared that a model may restyle. */
const folded = (text: string): string =>
  text
    .normalize('NFKC')
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}]+/gu, ' ')
    .trim();
/** A letter of a script that has no blanks between its words. */
const UNSPACED = new RegExp(
  `[${['Han', 'Hiragana', 'Katakana', 'Thai', 'Lao', 'Khmer', 'Myanmar'].map((s) => `\\p{Script=${s}}`).join('')}]`,
  'gu',
);
/** The words of a text; of scripts without blanks, its letters. */
export const wordsIn = (text: string): readonly string[] =>
  folded(text)
    .replaceAll(UNSPACED, ' $& ')
    .split(' ')
    .filter((word) => word !== '');
/** Whether a text has another in it, whatever stands between its letters and digits; never of an empty one. */
export function mentions(text: string, sought: string): boolean {
  const wanted = wordsIn(sought);
  if (wanted.length === 0) return false;
  const words = wordsIn(text);
  if (` ${words.join(' ')} `.includes(` ${wanted.join(' ')} `)) return true;
  // A number in groups of another size is the same number.
  const digits = wanted.join('');
  return /^\p{N}{5,}$/u.test(digits) && words.join('').includes(digits);
}
/** So many letters and digits do not stand in a row by chance. */
const LONG = 8;
/** Whether a text gives away what must not be said: also letter by letter, and grown together with other words. */
export function tells(text: string, secret: string): boolean {
  const sought = wordsIn(secret).join('');
  return mentions(text, secret) || (sought.length >= LONG && wordsIn(text).join('').includes(sought));
}
