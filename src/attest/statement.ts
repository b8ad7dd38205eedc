// in-toto Statements v1: what is said (predicate) of what (subjects, by digest).
import { z } from 'zod';
import { IntegrityError } from '../base/errors.js';
import { decodeJson } from '../base/json-file.js';
import type { Json, JsonObject } from '../verdict-log/canonical.js';

export const STATEMENT_TYPE = 'https://in-toto.io/Statement/v1';
const Digests = z
  .record(z.string().min(1), z.string().min(1))
  .refine((d) => Object.keys(d).length > 0, 'has no digest');
const Statement = z.object({
  _type: z.literal(STATEMENT_TYPE),
  subject: z.array(z.object({ name: z.string().optional(), digest: Digests })).min(1),
  predicateType: z.string().min(1),
  predicate: z.record(z.string(), z.unknown()),
});
export type Statement = z.infer<typeof Statement>;

export interface Subject {
  readonly name: string;
  readonly digest: Readonly<Record<string, string>>;
}
/** A thing that a predicate names, by digest. */
export interface Resource {
  readonly name: string;
  readonly digest: Readonly<Record<string, string>>;
}
export const resource = (name: string, hex: string): Resource => ({
  name,
  digest: { sha256: hex.replace(/^sha256:/, '') },
});

/** @throws {IntegrityError} bad_statement: what a bundle holds is none */
export function readStatement(payload: Uint8Array, file: string): Statement {
  const bad = (why: string, cause?: unknown): IntegrityError =>
    new IntegrityError(
      'bad_statement',
      `${file}: what is signed is no in-toto Statement v1: ${why}; sign it again`,
      { file },
      { cause },
    );
  let value: unknown;
  try {
    value = decodeJson(payload);
  } catch (e) {
    if (!(e instanceof SyntaxError)) throw e;
    throw bad(`not JSON: ${e.message}`, e);
  }
  const parsed = Statement.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw bad(`${issue?.path.join('.') || 'it'}: ${issue?.message ?? 'is of another form'}`, parsed.error);
}

export const statementOf = (subject: readonly Subject[], predicateType: string, predicate: JsonObject): Json => ({
  _type: STATEMENT_TYPE,
  subject: subject.map(({ name, digest }) => ({ name, digest: { ...digest } })),
  predicateType,
  predicate,
});
