// What is chosen beside the conversation. It outlives a reload, in this tab.
import { byId, say } from './dom.js';
import { EXAMPLE, toolsOf } from './tools.js';

/** @typedef {import('./api.js').Model} Model */

const KEPT = 'temper-playground';
const FIELDS = ['temperature', 'seed', 'most', 'system', 'tools', 'tool-choice'];
/** @type {HTMLFormElement} */
export const form = byId('settings');
/** @param {string} id */
const field = (id) => /** @type {HTMLInputElement} */ (byId(id));
const model = /** @type {HTMLSelectElement} */ (byId('model'));
const beside = /** @type {HTMLSelectElement} */ (byId('beside'));
const effort = () => String(new FormData(form).get('effort') ?? 'medium');

/** What was kept of the models' names, until there are models. @type {{ model?: string, beside?: string }} */
let kept = {};
/** @type {readonly Model[]} */
let known = [];

function keep() {
  const values = Object.fromEntries(FIELDS.map((id) => [id, field(id).value]));
  const all = { ...values, effort: effort(), model: model.value, beside: beside.value };
  sessionStorage.setItem(KEPT, JSON.stringify(all));
}
function recall() {
  const all = JSON.parse(sessionStorage.getItem(KEPT) ?? '{}');
  for (const id of FIELDS) if (typeof all[id] === 'string') field(id).value = all[id];
  /** @type {NodeListOf<HTMLInputElement>} */
  const radios = form.querySelectorAll('input[name=effort]');
  for (const radio of radios) radio.checked = radio.value === (all.effort ?? 'medium');
  kept = { model: all.model, beside: all.beside };
}

/** @param {string} name */
function noteOf(name) {
  const found = known.find((m) => m.id === name);
  if (!found) return name === '' ? '' : 'is not served any more';
  const { adapter, tensors, status, digest } = found.temper;
  const what = adapter ? `adapter, ${tensors} tensors, ${status}` : 'base';
  return `${what} · sha256 ${digest.slice(0, 12)}`;
}
function tell() {
  say(
    byId('temperature-says'),
    Number(field('temperature').value)
      .toFixed(2)
      .replace(/\.?0+$/, ''),
  );
  say(byId('model-note'), noteOf(model.value));
  say(byId('beside-note'), noteOf(beside.value));
  const { tools, fault } = toolsOf(field('tools').value);
  const note = byId('tools-note');
  say(note, fault ?? tools.map((t) => t.function.name).join(', '));
  note.classList.toggle('fault', fault !== null);
  field('tools').setAttribute('aria-invalid', String(fault !== null));
}

/**
 * @param {HTMLSelectElement} select
 * @param {string} chosen
 * @param {readonly (readonly [value: string, text: string, disabled: boolean])[]} options
 */
function fill(select, chosen, options) {
  select.replaceChildren(
    ...options.map(([value, text, disabled]) => {
      const option = new Option(text, value, false, value === chosen);
      option.disabled = disabled;
      return option;
    }),
  );
}

/** @param {readonly Model[]} models */
export function setModels(models) {
  known = models;
  const options = models.map(({ id, temper: { status } }) => {
    const usable = status !== 'quarantined';
    return /** @type {const} */ ([id, status === 'approved' ? id : `${id} (${status})`, !usable]);
  });
  const names = models.map((m) => m.id);
  const still = (/** @type {string | undefined} */ name) => (name && names.includes(name) ? name : undefined);
  fill(model, still(model.value) ?? still(kept.model) ?? names[0] ?? '', options);
  const second = still(beside.value) ?? still(kept.beside) ?? '';
  fill(beside, second, [['', 'nothing', false], ...options]);
  kept = {};
  tell();
}

/** The models that answer: one, or two beside each other. */
export const chosenModels = () => [model.value, ...(beside.value === '' ? [] : [beside.value])];

/** @returns {string | null} what keeps a request from being made */
export function fault() {
  const bad = /** @type {HTMLInputElement | undefined} */ ([...form.elements].find((e) => e.matches(':invalid')));
  if (bad) return `${bad.labels?.[0]?.textContent ?? bad.id}: ${bad.validationMessage}`;
  const { fault: tools } = toolsOf(field('tools').value);
  return tools === null ? null : `Tools: ${tools}`;
}

export const systemPrompt = () => field('system').value;

/** What a request says beside its model and its messages. */
export function requestFields() {
  const { tools } = toolsOf(field('tools').value);
  const number = (/** @type {string} */ id) => (field(id).value === '' ? undefined : Number(field(id).value));
  const [seed, most] = [number('seed'), number('most')];
  return {
    reasoning_effort: effort(),
    temperature: number('temperature'),
    ...(seed === undefined ? {} : { seed }),
    ...(most === undefined ? {} : { max_completion_tokens: most }),
    ...(tools.length === 0 ? {} : { tools, tool_choice: field('tool-choice').value }),
  };
}

recall();
form.addEventListener('input', () => {
  keep();
  tell();
});
form.addEventListener('submit', (e) => e.preventDefault());
byId('example').addEventListener('click', () => {
  field('tools').value = JSON.stringify(EXAMPLE, null, 2);
  keep();
  tell();
});
