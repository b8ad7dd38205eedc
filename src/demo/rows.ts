// What the demo asks and what it compares with: the held-out rows of the embedded datasets. Nothing a model says comes
// from here.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { DataError } from '../base/errors.js';
import { packageRoot } from '../base/machine.js';

const Turn = z.object({
  messages: z.tuple([
    z.object({ role: z.literal('user'), content: z.string() }),
    z.object({ role: z.literal('assistant'), thinking: z.string(), content: z.string() }),
  ]),
});
const Judged = z.object({
  id: z.string(),
  policy: z.string(),
  channel: z.string(),
  text: z.string(),
  expect: z.string().nullable(),
});

/** A held-out request and the ticket wanted for it. `detail`: what the guest added, and whether it may be passed on. */
export interface Request {
  readonly prompt: string;
  readonly analysis: string;
  readonly ticket: string;
  readonly detail: 'none' | 'private' | 'open';
  readonly topic: string | null;
}
export type JudgedText = z.infer<typeof Judged>;

function readRows<T>(path: string, row: z.ZodType<T>): T[] {
  const file = join(packageRoot, path);
  return readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line, i) => {
      const parsed = row.safeParse(JSON.parse(line));
      if (!parsed.success)
        throw new DataError(
          'row_schema',
          `${path}:${i + 1}: ${parsed.error.issues[0]?.message ?? 'bad row'}; restore the file from the repository`,
          { file, line: i + 1 },
        );
      return parsed.data;
    });
}

export function heldoutRequests(): readonly Request[] {
  return readRows('datasets/tickets/heldout.jsonl', Turn).map(({ messages: [user, answer] }) => {
    const note = /; (private|open) (\w+) /.exec(answer.thinking);
    return {
      prompt: user.content,
      analysis: answer.thinking,
      ticket: answer.content,
      detail: (note?.[1] ?? 'none') as Request['detail'],
      topic: note?.[2] ?? null,
    };
  });
}
export const heldoutTexts = (): readonly JudgedText[] => readRows('datasets/screening/heldout.jsonl', Judged);
