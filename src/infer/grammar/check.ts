// The last word on a value that claims a schema. Ajv has it, draft 2020-12, but where it differs from the standard or
// cannot read the schema: there an evaluator of our own has it, which keeps to all of the standard's own suite.
// Patterns are matched by the machines of the grammar, in one step a character, so no pattern of a client can make a
// text of a model cost more than its length.
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { ConfigError, TemperError } from '../../base/errors.js';
import { parseJson } from '../../base/json.js';
import { allows } from './characters.js';
import { within } from './deadline.js';
import { isMultiple } from './decimal.js';
import { Evaluator } from './evaluate.js';
import { type Grammar, makeGrammar } from './grammar.js';
import { PatternUnsupported } from './pattern-sets.js';
import { patternSet } from './plans.js';
import { isObject, type Json } from './typed.js';

export interface Checker {
  readonly grammar: Grammar;
  /** Keywords that the grammar does not keep to. */
  readonly checked: readonly string[];
  /** @returns what is wrong; null: nothing */
  check(text: string): string | null;
}

const engine = Object.assign(
  (pattern: string): { readonly test: (text: string) => boolean; readonly toString: () => string } => {
    const set = patternSet([pattern], 0, Number.POSITIVE_INFINITY);
    if (set === 'too_large') throw new ConfigError('schema_unsupported', `pattern ${pattern}: too large`);
    // Ajv tells patterns apart by their text.
    return { test: (text) => set !== null && allows(set, text), toString: () => `/${pattern}/u` };
  },
  { code: '' },
);

/** In these Ajv differs from the standard: what was looked at by contains and if, where a dynamic reference leads. */
const DOUBTFUL = ['unevaluatedItems', 'unevaluatedProperties', '$dynamicRef', '$dynamicAnchor'];
const doubtful = new RegExp(`"(?:${DOUBTFUL.join('|').replaceAll('$', '\\$')})":`);
/** Without the doubtful keywords a schema lets more through, unless one of these stands over it. */
const TURNS = /"(?:not|if|oneOf|contains|propertyNames)":/;
/** Ajv passes over a member called `__proto__`, and over one without a name where it is required. */
const PASSED_OVER = /"__proto__":|[[,]""[\],]/;
/** Where both stand in a schema, Ajv takes an empty list to contain what it must. */
const CONTAINED = [/"contains":/, /"prefixItems":/];
/** It refers to JSON Schema's own documents, which Ajv knows. */
const NAMES_META = /"\$(?:ref|dynamicRef)":"https:\/\/json-schema\.org\//;
/** Of checking one value. */
const MOST_MS = 2000;

/** Knows what a schema is. */
let meta: Ajv2020 | undefined;
/** @throws {ConfigError} schema_invalid */
function requireSchema(own: Json): void {
  meta ??= new Ajv2020({ strict: false, validateFormats: false, logger: false });
  if (meta.validateSchema(own) === true) return;
  const [error] = meta.errors ?? [];
  throw new ConfigError('schema_invalid', `#${error?.instancePath ?? ''}: ${error?.message ?? 'is no schema'}`);
}

const without = (v: unknown): unknown =>
  Array.isArray(v)
    ? v.map(without)
    : isObject(v)
      ? Object.fromEntries(Object.entries(v).flatMap(([k, w]) => (DOUBTFUL.includes(k) ? [] : [[k, without(w)]])))
      : v;

/** @throws {ConfigError} schema_unsupported: a pattern · what Ajv cannot read */
function compile(own: Json, knowsMeta: boolean): ValidateFunction {
  // One for each schema: its names are its own, and it goes with it.
  const ajv = new Ajv2020({
    strict: false,
    // The schema was looked at by the `meta` above, which is made once.
    meta: knowsMeta,
    validateSchema: false,
    ownProperties: true,
    // `format` says what a text is for; it refuses nothing.
    validateFormats: false,
    // Ajv's own simplifying of code takes a time that goes by the square of a schema's members.
    code: { regExp: engine as never, optimize: false },
    logger: false,
  });
  // Its own divides doubles: 4996.73 were no multiple of 0.01, and 1e21 one of 3.
  ajv.removeKeyword('multipleOf');
  ajv.addKeyword({
    keyword: 'multipleOf',
    type: 'number',
    schemaType: 'number',
    validate: (of: number, value: number) => isMultiple(value, of),
    error: { message: ({ schema: of }) => `must be multiple of ${of}` },
  });
  return ajv.compile(own);
}

/** What has to say yes, the last word last. @throws {ConfigError} schema_unsupported, schema_invalid */
function judges(schema: unknown, { grammar, references }: ReturnType<typeof makeGrammar>) {
  const { $schema: _, ...own } = (isObject(schema) ? schema : { allOf: [schema] }) as Json;
  requireSchema(own);
  const evaluator = new Evaluator(schema, references);
  const [isDoubtful, namesMeta] = [doubtful.test(grammar.text), NAMES_META.test(grammar.text)];
  const isOurs =
    PASSED_OVER.test(grammar.text) ||
    (isDoubtful && TURNS.test(grammar.text)) ||
    CONTAINED.every((keyword) => keyword.test(grammar.text));
  if (isOurs && !namesMeta) return { evaluator };
  try {
    const validate = compile(isDoubtful && !namesMeta ? (without(own) as Json) : own, namesMeta);
    return isDoubtful ? { validate, evaluator } : { validate };
  } catch (e) {
    if (e instanceof TemperError) throw e;
    const said = `#: ${e instanceof Error ? e.message : String(e)}`.slice(0, 400);
    if (namesMeta || e instanceof PatternUnsupported) throw new ConfigError('schema_unsupported', said);
    return { evaluator };
  }
}

/** @param ms how long its grammar may take · @throws {ConfigError} schema_unsupported, schema_invalid */
export function createChecker(schema: unknown, ms?: number): Checker {
  try {
    return checkerOf(schema, ms);
  } catch (e) {
    // Each pattern was read by itself; names that one of them or another allows are read as one.
    if (e instanceof PatternUnsupported)
      throw new ConfigError(
        'schema_unsupported',
        `#: patternProperties beside other names: ${e.message} is not supported`,
      );
    if (!(e instanceof RangeError)) throw e;
    throw new ConfigError('schema_unsupported', `#: it could not be compiled: ${e.message}`.slice(0, 400));
  }
}
function checkerOf(schema: unknown, ms?: number): Checker {
  const made = makeGrammar(schema, ms);
  const { validate, evaluator }: { readonly validate?: ValidateFunction; readonly evaluator?: Evaluator } = judges(
    schema,
    made,
  );
  const keeps = (value: unknown): boolean =>
    (validate === undefined || validate(value) === true) && (evaluator === undefined || evaluator.allows(value));
  return {
    grammar: made.grammar,
    checked: made.grammar.checked,
    check(text) {
      let value: unknown;
      try {
        value = parseJson(text);
      } catch {
        return 'no JSON';
      }
      try {
        if (within(MOST_MS, () => keeps(value))) return null;
      } catch (e) {
        // Nested too deeply, or for too long: nobody can say that it keeps to its schema.
        return `it could not be checked: ${e instanceof Error ? e.message : String(e)}`.slice(0, 200);
      }
      const [error] = validate?.errors ?? [];
      return `${error?.instancePath || '#'}: ${error?.message ?? 'breaks its schema'}`.slice(0, 200);
    },
  };
}
