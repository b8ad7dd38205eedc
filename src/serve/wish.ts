// What a request holds its turn to, in whichever API: calls that must come, an answer and arguments that keep to
// schemas.
import type { TurnWish } from '../infer/structures.js';
import { ANSWER_FIELD, badRequest } from './api-error.js';
import { withExactNumbers } from './exact-numbers.js';

export interface Asked {
  /** Of the answer; undefined: none. */
  readonly schema: object | undefined;
  /** `auto`: as it likes · `required`: some tool · a name: that one. */
  readonly choice: 'auto' | 'none' | 'required' | { readonly name: string };
  readonly tools: readonly {
    readonly name: string;
    readonly parameters?: object | null | undefined;
    readonly strict?: boolean | null | undefined;
  }[];
  /** A text ends it. */
  readonly stops: boolean;
  /** What the body calls these. */
  readonly fields: { readonly choice: string; readonly stop: string };
}

/** The tools that a choice leaves a turn. @throws {ApiError} 400 invalid_value: one that is not declared */
export function allowedOf<T>(tools: readonly T[], nameOf: (tool: T) => string, allowed: readonly string[]): T[] {
  const missing = allowed.find((name) => !tools.some((t) => nameOf(t) === name));
  if (missing !== undefined)
    throw badRequest('invalid_value', `tool_choice: no tool is named ${JSON.stringify(missing)}`, 'tool_choice');
  return tools.filter((t) => allowed.includes(nameOf(t)));
}

/** @returns undefined: nothing, and it is generated as ever @throws {ApiError} 400 invalid_value, schema_unsupported */
export function wishOf({ schema, choice, tools, stops, fields }: Asked): TurnWish | undefined {
  const refuse = (field: string, why: string): Error => badRequest('invalid_value', `${field}: ${why}`, field);
  const named = typeof choice === 'object' ? choice.name : null;
  if (named !== null && !tools.some((t) => t.name === named))
    throw refuse(fields.choice, `no tool is named ${JSON.stringify(named)}`);
  const mustCall = named !== null || choice === 'required';
  if (mustCall && tools.length === 0) throw refuse(fields.choice, 'there are no tools to call');
  if (schema !== undefined && stops)
    throw refuse(fields.stop, 'an answer that is cut keeps to no schema; leave one of them out');
  if (schema === undefined && !mustCall && !tools.some((t) => t.strict)) return undefined;
  return {
    ...(schema === undefined ? {} : { answer: withExactNumbers(schema, ANSWER_FIELD) }),
    calls: tools
      .filter((t) => named === null || t.name === named)
      .map(({ name, parameters, strict }) => ({
        recipient: `functions.${name}`,
        ...(parameters ? { schema: strict ? withExactNumbers(parameters, 'tools') : parameters } : {}),
        strict: strict === true,
      })),
    mustCall,
  };
}
