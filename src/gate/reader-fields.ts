// Fields of outcomes that are for readers. They decide nothing, so nothing holds them to a form when outcomes are read:
// what is not of theirs counts as not there.
import { z } from 'zod';

/** What was said, by channel, turn after turn. */
const Said = z.array(z.record(z.string(), z.string()));
export type Said = readonly Readonly<Record<string, string>>[];

const ReaderFields = z.object({
  test: z.string().optional().catch(undefined),
  case: z.int().optional().catch(undefined),
  rule: z.string().optional().catch(undefined).describe('that the judge named'),
  cause: z.string().optional().catch(undefined).describe('why there is no value'),
  matrix: z.string().optional().catch(undefined).describe('trace/final'),
  tokens: z.number().min(0).optional().catch(undefined),
  asked: z.string().optional().catch(undefined),
  said: Said.optional().catch(undefined),
});
export type ReaderFields = Readonly<z.infer<typeof ReaderFields>>;

/** A row of outcomes that were read as such before, with those of its further fields that readers know. */
export const readable = <T extends object>(row: unknown): T & ReaderFields => ({
  ...(row as T),
  ...ReaderFields.parse(row),
});
