// Fields of config.json as a recipe has them: the zod schemas of those that checkpoints are read by.
import { z } from 'zod';
import { CONFIG_FIELDS } from '../model/config.js';
import type { Field, Kind } from '../model/config-fields.js';

function zodOf(kind: Kind): z.ZodType {
  switch (kind.is) {
    case 'int':
      return z
        .int()
        .min(kind.least ?? Number.MIN_SAFE_INTEGER)
        .max(kind.most ?? Number.MAX_SAFE_INTEGER);
    case 'number':
      return kind.above === undefined ? z.number() : z.number().gt(kind.above);
    case 'boolean':
      return z.boolean();
    case 'string':
      return z.string();
    case 'object':
      return z.looseObject({});
    case 'ids':
      return z.union([z.int(), z.array(z.int())]);
    case 'one':
      return z.literal([...kind.of]);
    case 'list':
      return z.array(z.enum(kind.of.map(String)));
  }
}
function fieldOf({ kind, absent, default: usual }: Field<unknown>): z.ZodType {
  const plain = zodOf(kind);
  if (usual !== undefined) return plain.default(usual);
  return absent === 'null' ? plain.nullish() : absent === 'missing' ? plain.optional() : plain;
}
type Fields = typeof CONFIG_FIELDS;
export const CONFIG_SHAPE = Object.fromEntries(
  Object.entries(CONFIG_FIELDS).map(([name, field]) => [name, fieldOf(field)]),
) as unknown as { readonly [K in keyof Fields]: Fields[K] extends Field<infer T> ? z.ZodType<T> : never };
