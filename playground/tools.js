// Tools as somebody pastes them: OpenAI's form or Anthropic's, one or a list, or the schema of the arguments alone.

export const EXAMPLE = {
  name: 'get_weather',
  description: 'The weather of a place.',
  parameters: {
    type: 'object',
    properties: { place: { type: 'string' }, unit: { enum: ['celsius', 'fahrenheit'] } },
    required: ['place'],
  },
};

/**
 * @param {any} v
 * @returns {v is Record<string, any>}
 */
const isObject = (v) => typeof v === 'object' && v !== null && !Array.isArray(v);

/** @param {any} given */
function toolOf(given) {
  if (!isObject(given)) throw new Error('wanted an object');
  const { name, description, parameters, input_schema, strict } = isObject(given.function) ? given.function : given;
  const rest = { ...(description ? { description } : {}), ...(strict === undefined ? {} : { strict }) };
  if (typeof name === 'string')
    return { type: 'function', function: { name, ...rest, parameters: parameters ?? input_schema ?? {} } };
  if (given.type !== 'object' && !isObject(given.properties))
    throw new Error('has no name, and is no schema of an object');
  const title = String(given.title ?? '')
    .replaceAll(/[^\w.-]+/g, '_')
    .slice(0, 64);
  return { type: 'function', function: { name: title || 'tool', ...rest, parameters: given } };
}

/**
 * @param {string} text
 * @returns {{ tools: { function: { name: string } }[], fault: string | null }}
 */
export function toolsOf(text) {
  if (text.trim() === '') return { tools: [], fault: null };
  let json;
  try {
    json = JSON.parse(text);
  } catch (e) {
    return { tools: [], fault: `not JSON: ${/** @type {Error} */ (e).message}` };
  }
  const list = Array.isArray(json) ? json : [json];
  const tools = [];
  for (const [i, given] of list.entries())
    try {
      tools.push(toolOf(given));
    } catch (e) {
      return { tools: [], fault: `${list.length > 1 ? `tool ${i + 1} ` : ''}${/** @type {Error} */ (e).message}` };
    }
  return { tools, fault: null };
}
