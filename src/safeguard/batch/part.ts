// The file that one shard leaves: its verdicts, each with the place of its row among all rows, and a last line that
// says what it is a part of. `merge` believes nothing else.
import type { Hash } from 'node:crypto';
import { z } from 'zod';
import { IntegrityError } from '../../base/errors.js';
import { InputFile } from '../../base/inputs.js';
import { parseJson } from '../../base/json.js';
import type { VerdictRow } from '../agreement.js';

const Digests = z.strictObject({
  policy: z.string(),
  judge: z.string(),
  detectors: z.string().optional(),
  judging: z.string().optional(),
});
const Footer = z.strictObject({
  version: z.literal(2),
  shard: z.int().min(1),
  of: z.int().min(1),
  /** Rows of all shards. */
  rows: z.int().min(0),
  /** Rows of this one. */
  own: z.int().min(0),
  verdicts: z.int().min(0),
  blank: z.int().min(0),
  /** sha256 of the files that were read, in their order. */
  inputs: z.array(z.string()),
  /** What they are called where the shard was judged. */
  names: z.array(z.string()),
  /** By policy: digests of it, of the judge and of the detectors. */
  policies: z.record(z.string(), Digests),
  /** sha256 of all bytes before this line, and of what it says itself. */
  sha256: z.string(),
});
export type Footer = z.infer<typeof Footer>;
type DigestsOf = Record<string, z.infer<typeof Digests>>;

const LAST_LINE = z.strictObject({ part: Footer });
/** Most of a file that its last line may take. */
const MOST_BYTES = 4 * 2 ** 20;

type Said = Omit<Footer, 'sha256'>;
/** @param before of all bytes before the last line; it goes on as it was */
export const sealOf = (said: Said, before: Hash): string => before.copy().update(JSON.stringify(said)).digest('hex');
export const footerLine = (said: Said, before: Hash): string =>
  JSON.stringify({ part: { ...said, sha256: sealOf(said, before) } });

const damaged = (file: string, why: string): IntegrityError =>
  new IntegrityError(
    'part_damaged',
    `${file}: ${why}; wanted what \`temper screen --shard i/n --out FILE\` leaves, copied whole`,
    { file },
  );

/** The last line of a part, and where it begins. @throws {IntegrityError} part_damaged · as InputFile.open */
export function readFooter(file: string): { readonly footer: Footer; readonly at: number } {
  using input = InputFile.open(file);
  const length = Math.min(MOST_BYTES, input.size);
  const tail = Buffer.alloc(length);
  input.read(input.size - length, tail);
  if (tail.at(-1) !== 10) throw damaged(file, 'it ends in the middle of a line, or is empty');
  const from = tail.lastIndexOf(10, -2) + 1;
  if (from === 0 && length < input.size) throw damaged(file, 'its last line is too long');
  let value: unknown;
  try {
    value = parseJson(tail.toString('utf8', from));
  } catch {
    throw damaged(file, 'its last line is not JSON');
  }
  const parsed = LAST_LINE.safeParse(value);
  if (!parsed.success) throw damaged(file, 'its last line does not say which part it is');
  return { footer: parsed.data.part, at: input.size - length + from };
}

/** Digests under which verdicts fell, by policy; two for one policy are an error. */
export class DigestsSeen {
  readonly #seen = new Map<string, DigestsOf[string]>();

  /** @returns false: under another digest than before */
  add({ policy, digests }: Pick<VerdictRow, 'policy' | 'digests'>): boolean {
    // Of a row that holds nothing nobody was asked.
    if (policy === '') return true;
    const before = this.#seen.get(policy);
    if (before) return before.policy === digests.policy && before.judge === digests.judge && same(before, digests);
    const { policy: text, judge, detectors, judging } = digests;
    this.#seen.set(policy, {
      policy: text,
      judge,
      ...(detectors === undefined ? {} : { detectors }),
      ...(judging === undefined ? {} : { judging }),
    });
    return true;
  }
  all(): DigestsOf {
    return Object.fromEntries([...this.#seen].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}
const same = (a: DigestsOf[string], b: DigestsOf[string]): boolean =>
  (a.detectors ?? '') === (b.detectors ?? '') && (a.judging ?? '') === (b.judging ?? '');
