// Tools as the prompt shows them: TypeScript-like signatures (facts E4). Layout is what the model was trained on,
// quirks included.

export type JsonSchema = Readonly<Record<string, unknown>>;
export interface FunctionTool {
  readonly name: string;
  readonly description?: string;
  readonly parameters?: JsonSchema;
}
/** `functions`, or a built-in one. Without tools the description stands as plain text. */
export interface ToolNamespace {
  readonly name: string;
  readonly description?: string;
  readonly tools: readonly FunctionTool[];
}

const isSchema = (v: unknown): v is JsonSchema => typeof v === 'object' && v !== null && !Array.isArray(v);
const text = (v: unknown): string | undefined => (typeof v === 'string' ? v : undefined);
const list = (v: unknown): readonly unknown[] | undefined => (Array.isArray(v) ? v : undefined);
const lines = (s: string): string[] => s.replace(/\r?\n$/, '').split(/\r?\n/);

/** "# Tools" and one section per namespace, joined by blank lines. */
export function toolsSection(namespaces: readonly ToolNamespace[]): string {
  return ['# Tools', ...namespaces.map(namespaceSection)].join('\n\n');
}

function namespaceSection({ name, description, tools }: ToolNamespace): string {
  const out = [`## ${name}\n`];
  if (description) out.push(...lines(description).map((line) => (tools.length > 0 ? `// ${line}` : line)));
  if (tools.length > 0) {
    out.push(`namespace ${name} {\n`);
    for (const tool of tools) {
      if (tool.description) out.push(...lines(tool.description).map((line) => `// ${line}`));
      out.push(
        tool.parameters && !isEmptyObject(tool.parameters)
          ? `type ${tool.name} = (_: ${schemaType(tool.parameters, '')}) => any;\n`
          : `type ${tool.name} = () => any;\n`,
      );
    }
    out.push(`} // namespace ${name}`);
  }
  return out.join('\n');
}

/** OpenAI clients write "no parameters" as an object schema without properties; one of any keys is a map. */
const isEmptyObject = (schema: JsonSchema): boolean =>
  Object.keys(schema).length === 0 ||
  (schema.type === 'object' &&
    (!isSchema(schema.properties) || Object.keys(schema.properties).length === 0) &&
    !takesAnyKey(schema));
const takesAnyKey = (schema: JsonSchema): boolean =>
  schema.additionalProperties === true || isSchema(schema.additionalProperties) || isSchema(schema.patternProperties);

/** What says of which type a value is, and has no word in the notation. */
const WORDLESS = ['$ref', 'anyOf', 'allOf', 'const', 'not', 'if', 'prefixItems'];
/**
 * Places in a schema whose type the model is not told, though the schema says it: `guest ($ref)`. OpenAI's library
 * writes `any` there too, and what it writes is what the model was trained on.
 */
export function untold(schema: JsonSchema, at = ''): string[] {
  const out = WORDLESS.filter((k) => k in schema);
  if (isEnum(schema) && schema.type !== 'string') out.push('enum');
  if (takesAnyKey(schema)) out.push('additionalProperties');
  const inside = [
    ...Object.entries(isSchema(schema.properties) ? schema.properties : {}),
    ...(isSchema(schema.items) ? [['[]', schema.items] as const] : []),
    ...(list(schema.oneOf) ?? []).map((v, i) => [`oneOf.${i}`, v] as const),
  ];
  return [
    ...out.map((k) => `${at || 'parameters'} (${k})`),
    ...inside.flatMap(([k, v]) => (isSchema(v) ? untold(v, at ? `${at}.${k}` : k) : [])),
  ];
}

const isEnum = (schema: JsonSchema): boolean => (list(schema.enum)?.length ?? 0) > 0;

/** `default: …`: a plain string in quotes, an enum's value bare where `bareEnum`, anything else as JSON. */
function defaultNote(schema: JsonSchema, bareEnum: boolean): string | undefined {
  if (!('default' in schema)) return undefined;
  const value = schema.default;
  if (typeof value === 'string')
    return `default: ${isEnum(schema) && bareEnum ? value : isEnum(schema) ? JSON.stringify(value) : `"${value}"`}`;
  return `default: ${JSON.stringify(value)}`;
}

function withNull(schema: JsonSchema, type: string): string {
  return schema.nullable === true && !type.includes('null') ? `${type} | null` : type;
}

/** The type of a schema; what the notation has no word for is `any`. `indent` precedes every line but the first. */
export function schemaType(schema: JsonSchema, indent: string): string {
  const variants = list(schema.oneOf);
  if (variants) return variants.map((v) => `\n${variant(v, indent, { bareEnum: false })}`).join('');
  const types = list(schema.type);
  if (types) {
    const names = types.filter((t): t is string => typeof t === 'string').map((t) => (t === 'integer' ? 'number' : t));
    return names.length > 0 ? names.join(' | ') : 'any';
  }
  switch (schema.type) {
    case 'object':
      return objectType(schema, indent);
    case 'string': {
      const values = (list(schema.enum) ?? []).filter((v) => typeof v === 'string');
      return values.length > 0 ? values.map((v) => `"${v}"`).join(' | ') : 'string';
    }
    case 'number':
    case 'integer':
      return 'number';
    case 'boolean':
      return 'boolean';
    case 'array':
      return isSchema(schema.items) ? `${schemaType(schema.items, indent)}[]` : 'Array<any>';
    default:
      return 'any';
  }
}

/** @param how.unless the description already written above the key; true: none is wanted here */
function variant(
  value: unknown,
  indent: string,
  how: { readonly bareEnum: boolean; readonly unless?: string | true | undefined },
): string {
  const schema = isSchema(value) ? value : {};
  const about = text(schema.description);
  const notes = [
    how.unless === true || about === how.unless ? undefined : about,
    defaultNote(schema, how.bareEnum),
  ].filter((n) => n !== undefined);
  return (
    `${indent} | ` +
    `${withNull(schema, schemaType(schema, `${indent}   `))}${notes.length > 0 ? ` // ${notes.join(' ')}` : ''}`
  );
}

function objectType(schema: JsonSchema, indent: string): string {
  const about = text(schema.description);
  const required = new Set(list(schema.required) ?? []);
  const rows = Object.entries(isSchema(schema.properties) ? schema.properties : {}).map(([key, value]) =>
    property(`${key}${required.has(key) ? '' : '?'}`, isSchema(value) ? value : {}, indent),
  );
  return `${about === undefined ? '' : `${indent}// ${about}\n`}{\n${rows.join('')}${indent}}`;
}

function property(key: string, schema: JsonSchema, indent: string): string {
  const title = text(schema.title);
  const about = text(schema.description);
  const variants = list(schema.oneOf);
  const examples = list(schema.examples) ?? [];
  const note = defaultNote(schema, true);
  let out = title === undefined ? '' : `${indent}// ${title}\n${indent}//\n`;
  if (!variants && about !== undefined) out += `${indent}// ${about}\n`;
  if (examples.length > 0) {
    out += `${indent}// Examples:\n`;
    for (const example of examples) if (typeof example === 'string') out += `${indent}// - "${example}"\n`;
  }
  if (!variants)
    return (
      `${out}${indent}${key}: ` +
      `${withNull(schema, schemaType(schema, `${indent}    `))},${note === undefined ? '' : ` // ${note}`}\n`
    );

  // A description above the key stands for the first variant's too; one that equals the first variant's is written
  // nowhere.
  const first = isSchema(variants[0]) ? text(variants[0].description) : undefined;
  const above = about !== undefined && about !== first;
  if (above) out += `${indent}// ${about}\n`;
  if (note !== undefined) out += `${indent}// ${note}\n`;
  const lines = variants.map(
    (v, i) => `${variant(v, indent, { bareEnum: true, unless: i === 0 && above ? true : about })}\n`,
  );
  return `${out}${indent}${key}:\n${lines.join('')}${indent},\n`;
}
