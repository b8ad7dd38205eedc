// The last word on a value that claims a schema: Ajv, draft 2020-12. Patterns are matched by the machines of the
// grammar, in one step a character, so no pattern of a client can make a text of a model cost more than its length.
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { ConfigError, TemperError } from '../../base/errors.js';
import { parseJson } from '../../base/json.js';
import { allows } from './characters.js';
import { patternSet } from './plans.js';
import { compileSchema } from './schema.js';

export interface Checker {
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

/** Knows what a schema is. */
let meta: Ajv2020 | undefined;

/** @throws {ConfigError} schema_unsupported, schema_invalid */
export function createChecker(schema: unknown): Checker {
  const { checked } = compileSchema(schema);
  // One for each schema: its names are its own, and it goes with it.
  const ajv = new Ajv2020({
    strict: false,
    // The schema was looked at by `meta`, which is made once.
    meta: false,
    validateSchema: false,
    ownProperties: true,
    // `format` says what a text is for; it refuses nothing.
    validateFormats: false,
    // As decimals: 0.3 is a multiple of 0.1.
    multipleOfPrecision: 12,
    code: { regExp: engine as never },
    logger: false,
  });
  let validate: ValidateFunction;
  try {
    const { $schema: _, ...own } = (typeof schema === 'object' ? schema : { allOf: [schema] }) as Record<
      string,
      unknown
    >;
    meta ??= new Ajv2020({ strict: false, validateFormats: false, logger: false });
    if (meta.validateSchema(own) !== true) {
      const [error] = meta.errors ?? [];
      throw new ConfigError('schema_invalid', `#${error?.instancePath ?? ''}: ${error?.message ?? 'is no schema'}`);
    }
    validate = ajv.compile(own);
  } catch (e) {
    if (e instanceof TemperError) throw e;
    throw new ConfigError('schema_unsupported', `#: ${e instanceof Error ? e.message : String(e)}`.slice(0, 400));
  }
  return {
    checked,
    check(text) {
      let value: unknown;
      try {
        value = parseJson(text);
      } catch {
        return 'no JSON';
      }
      if (validate(value)) return null;
      const [error] = validate.errors ?? [];
      return `${error?.instancePath || '#'}: ${error?.message ?? 'breaks its schema'}`.slice(0, 200);
    },
  };
}
