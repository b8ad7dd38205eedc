// What was said so far, and what of it the next request takes along. Knows nothing of the page.

/** @typedef {{ id: string, name: string, args: string, result: string | null }} Call */
/** @typedef {{ policy: string, channel: string, outcome: string, rule: string | null, cause: string | null }} Verdict */
/**
 * One request and its answer.
 * @typedef {object} Step
 * @property {'waiting' | 'streaming' | 'done' | 'stopped' | 'failed'} state
 * @property {string} reasoning
 * @property {string} content
 * @property {Call[]} calls
 * @property {string | null} finish
 * @property {string | null} refusal in place of what was withheld
 * @property {readonly Verdict[] | null} verdicts null: nothing was judged
 * @property {any} usage as the API tells it; null: not told
 * @property {string | null} fault
 * @property {Record<string, unknown>} body what was asked
 * @property {number} sentAt ms
 * @property {number | null} firstAt
 * @property {number} lastAt
 */
/** What a model makes of it: more than one step where it calls tools. @typedef {{ model: string, steps: Step[] }} Run */
/** A question and who answered it, one or two. @typedef {{ text: string, runs: Run[] }} Exchange */

/**
 * @param {Record<string, unknown>} body
 * @param {number} now
 * @returns {Step}
 */
export const newStep = (body, now) => ({
  state: 'waiting',
  reasoning: '',
  content: '',
  calls: [],
  finish: null,
  refusal: null,
  verdicts: null,
  usage: null,
  fault: null,
  body,
  sentAt: now,
  firstAt: null,
  lastAt: now,
});

/**
 * Adds a chunk of a stream.
 * @param {Step} step
 * @param {any} chunk
 * @param {number} now ms
 */
export function take(step, chunk, now) {
  if (chunk.usage) step.usage = chunk.usage;
  if (chunk.temper) step.verdicts = chunk.temper.verdicts;
  const [choice] = chunk.choices;
  if (!choice) return;
  const { delta, finish_reason: finish } = choice;
  const thought = delta.reasoning_content ?? '';
  const said = delta.content ?? '';
  step.reasoning += thought;
  step.content += said;
  for (const { index, id, function: f } of delta.tool_calls ?? []) {
    step.calls[index] ??= { id, name: f.name, args: '', result: null };
    step.calls[index].args += f.arguments ?? '';
  }
  if (delta.refusal) step.refusal = (step.refusal ?? '') + delta.refusal;
  if (finish) {
    step.finish = finish;
    step.lastAt = now;
  }
  if (thought !== '' || said !== '' || delta.tool_calls) {
    step.firstAt ??= now;
    step.lastAt = now;
    step.state = 'streaming';
  }
}

/** @param {Step} step */
export const isWithheld = (step) => step.finish === 'content_filter';
/** It waits for the results of its calls. @param {Step} step */
export const isCalling = (step) => step.finish === 'tool_calls' && step.calls.some((c) => c.result === null);

/**
 * What a step leaves in the conversation: nothing where it was withheld or failed, or its calls had no result.
 * @param {Step} step
 * @returns {Record<string, unknown>[]}
 */
function messagesOfStep(step) {
  const { reasoning, content, calls } = step;
  if (isWithheld(step) || step.state === 'failed') return [];
  if (calls.length === 0) return content.trim() === '' ? [] : [{ role: 'assistant', content }];
  if (calls.some((c) => c.result === null)) return [];
  return [
    {
      role: 'assistant',
      content: content.trim() === '' ? null : content,
      // Read again until an answer is given, and then dropped by the server.
      ...(reasoning.trim() === '' ? {} : { reasoning_content: reasoning }),
      tool_calls: calls.map((c) => ({ id: c.id, type: 'function', function: { name: c.name, arguments: c.args } })),
    },
    ...calls.map((c) => ({ role: 'tool', tool_call_id: c.id, content: c.result })),
  ];
}

/**
 * The conversation of a column. Where it had no answer of its own, as it was not there yet, it has the other's. A
 * question of which nothing came is left out, but for the last one.
 * @param {readonly Exchange[]} exchanges
 * @param {number} column
 * @param {string} system
 */
export function messagesOf(exchanges, column, system) {
  const asked = exchanges.flatMap(({ text, runs }, i) => {
    const said = (runs[column] ?? runs[0])?.steps.flatMap(messagesOfStep) ?? [];
    return said.length === 0 && i < exchanges.length - 1 ? [] : [{ role: 'user', content: text }, ...said];
  });
  return system.trim() === '' ? asked : [{ role: 'system', content: system }, ...asked];
}

/** What comes within so many ms came at once: it was held back until its verdicts, or until its schema was checked. */
const AT_ONCE = 20;
/**
 * How long it took. The rate of what was held back is that of the whole.
 * @param {Step} step
 * @returns {{ firstMs: number | null, held: boolean, rate: number | null }} rate: tokens a second, once they are told
 */
export function pace({ state, usage, verdicts, firstAt, lastAt, sentAt }) {
  if (firstAt === null) return { firstMs: null, held: false, rate: null };
  const held = state !== 'streaming' && (verdicts !== null || lastAt - firstAt < AT_ONCE);
  const seconds = (lastAt - (held ? sentAt : firstAt)) / 1000;
  const counted = (usage?.completion_tokens ?? 0) - (held ? 0 : 1);
  return { firstMs: firstAt - sentAt, held, rate: seconds > 0 && counted > 0 ? counted / seconds : null };
}
