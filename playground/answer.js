// The picture of what one model makes of a question. Each part shows itself when there is something of it.
import { isCalling, isWithheld, pace } from './conversation.js';
import { Growing, make, say } from './dom.js';

/** @typedef {import('./conversation.js').Step} Step */
/** @typedef {import('./conversation.js').Call} Call */
/**
 * @typedef {object} Handlers
 * @property {(step: Step) => void} answered the results of its calls are there
 * @property {(step: Step) => void} again
 * @property {(step: Step) => Promise<boolean>} copy false: it is shown instead
 */

const OUTCOMES = /** @type {Record<string, string>} */ ({ allow: 'allowed', block: 'blocked', unjudged: 'not judged' });
const FINISHES = /** @type {Record<string, string>} */ ({
  length: 'cut off at the most tokens',
  tool_calls: 'waits for a result',
  content_filter: 'withheld',
});

/** @param {number} n */
const few = (n) => (n < 10 ? n.toFixed(1) : String(Math.round(n)));
/** @param {number} ms */
const time = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
/** @param {number} n */
const tokens = (n) => `${n.toLocaleString('en')} ${n === 1 ? 'token' : 'tokens'}`;

/** Nothing of it came, as after its verdicts. @param {Step} step */
const lateness = ({ state, sentAt, lastAt }) => (state === 'done' ? `told after ${time(lastAt - sentAt)}` : '');

/** @param {Step} step */
function factsOf(step) {
  const { firstMs, held, rate } = pace(step);
  const { usage } = step;
  const cached = usage?.prompt_tokens_details?.cached_tokens ?? 0;
  const thoughts = usage?.completion_tokens_details?.reasoning_tokens ?? 0;
  return [
    firstMs === null ? lateness(step) : held ? `whole after ${time(firstMs)}` : `first token ${time(firstMs)}`,
    step.state === 'streaming' ? time(step.lastAt - step.sentAt) : '',
    rate === null ? '' : `${few(rate)} tokens/s`,
    usage === null ? '' : `${tokens(usage.completion_tokens)}${thoughts > 0 ? `, ${thoughts} of thought` : ''}`,
    usage === null ? '' : `prompt ${usage.prompt_tokens}${cached > 0 ? `, ${cached} cached` : ''}`,
  ].filter((fact) => fact !== '');
}

/** @param {Step} step */
function wordOf(step) {
  if (step.state === 'waiting') return 'waiting';
  if (step.state === 'streaming') return 'writing';
  if (step.state !== 'done') return step.state;
  if (step.finish === 'tool_calls' && !isCalling(step)) return '';
  if (step.finish === 'stop' && step.content === '') return 'ended without an answer';
  return FINISHES[step.finish ?? ''] ?? '';
}

/** A channel's text under its name. @param {string} channel */
function channelBox(channel) {
  const name = make('span', 'channel', channel);
  const text = make('div', 'text');
  const box = make('div', `part ${channel}`, name, text);
  box.hidden = true;
  return { box, name, text: new Growing(text) };
}

class StepView {
  #step;
  #thoughts = make('details', 'part analysis');
  #count = make('span', 'note');
  #thought;
  #said = channelBox('final');
  #calls = make('div', 'calls');
  #send = make('button', 'small', 'Send the result');
  #verdicts = make('div', 'verdicts');
  #fault = make('p', 'fault');
  #again = make('button', 'small', 'Try again');
  #word = make('span', 'word');
  #facts = make('span', 'facts');
  #copy = make('button', 'small', 'Copy as curl');
  /** @type {{ args: Growing, result: HTMLTextAreaElement }[]} */
  #shown = [];
  element = make('div', 'step');

  /**
   * @param {Step} step
   * @param {Handlers} handlers
   */
  constructor(step, handlers) {
    this.#step = step;
    const thought = make('div', 'text');
    this.#thought = new Growing(thought);
    this.#thoughts.append(make('summary', '', make('span', 'channel', 'analysis'), this.#count), thought);
    this.#fault.setAttribute('role', 'alert');
    for (const e of [this.#thoughts, this.#calls, this.#verdicts, this.#fault, this.#again, this.#send])
      e.hidden = true;
    for (const b of [this.#send, this.#again, this.#copy]) b.type = 'button';
    this.#send.addEventListener('click', () => this.#answer(handlers));
    this.#again.addEventListener('click', () => handlers.again(step));
    this.#copy.addEventListener('click', async () => {
      if (!(await handlers.copy(step))) return;
      say(this.#copy, 'Copied');
      setTimeout(() => say(this.#copy, 'Copy as curl'), 1500);
    });
    this.#calls.addEventListener('keydown', (e) => {
      if (e.key !== 'Enter' || e.shiftKey || e.isComposing) return;
      e.preventDefault();
      this.#answer(handlers);
    });
    const foot = make('div', 'foot', this.#word, this.#facts, make('span', 'gap'), this.#again, this.#copy);
    this.element.append(this.#thoughts, this.#said.box, this.#calls, this.#send, this.#verdicts, this.#fault, foot);
  }

  /** @param {Handlers} handlers */
  #answer(handlers) {
    if (!isCalling(this.#step)) return;
    this.#step.calls.forEach((call, i) => {
      call.result = this.#shown[i]?.result.value ?? '';
    });
    handlers.answered(this.#step);
  }

  show() {
    const step = this.#step;
    const { reasoning, content, calls, fault } = step;
    this.#thoughts.hidden = reasoning === '';
    this.#thought.show(reasoning);
    const busy = step.state === 'streaming' && content === '' && calls.length === 0;
    say(this.#count, busy ? 'thinking' : `${reasoning.trim().split(/\s+/).length} words`);
    this.#thoughts.classList.toggle('busy', busy);
    this.#said.box.hidden = content === '';
    const channel = calls.length > 0 ? 'commentary' : 'final';
    this.#said.box.className = `part ${channel}`;
    say(this.#said.name, channel);
    this.#said.text.show(content);
    this.#showCalls(calls);
    if (step.state !== 'streaming') this.#showVerdicts();
    this.#fault.hidden = fault === null;
    say(this.#fault, fault ?? '');
    this.#again.hidden = fault === null;
    const word = wordOf(step);
    say(this.#word, word);
    this.#word.className = `word ${step.state} ${isWithheld(step) ? 'withheld' : ''}`;
    say(this.#facts, factsOf(step).join(' · '));
    this.element.setAttribute('aria-busy', String(step.state === 'waiting' || step.state === 'streaming'));
  }

  /** @param {readonly Call[]} calls */
  #showCalls(calls) {
    this.#calls.hidden = calls.length === 0;
    calls.forEach((call, i) => {
      this.#shown[i] ??= this.#addCall(call);
      const shown = this.#shown[i];
      shown.args.show(call.args);
      shown.result.hidden = this.#step.finish !== 'tool_calls';
      shown.result.readOnly = call.result !== null;
    });
    this.#send.hidden = !isCalling(this.#step);
  }
  /** @param {Call} call */
  #addCall({ name }) {
    const args = make('div', 'text code');
    const result = make('textarea', 'code');
    result.rows = 2;
    result.placeholder = 'What it answers';
    result.setAttribute('aria-label', `Result of ${name}`);
    const head = make('div', '', make('span', 'channel', 'call'), make('b', 'name', name));
    this.#calls.append(make('div', 'part call', head, args, result));
    return { args: new Growing(args), result };
  }

  #showVerdicts() {
    const { refusal, verdicts } = this.#step;
    const withheld = isWithheld(this.#step);
    if (!this.#verdicts.hidden || (verdicts === null && !withheld)) return;
    this.#verdicts.hidden = false;
    const title = withheld ? 'Withheld' : 'Judged, and allowed';
    const rows = (verdicts ?? []).map((v) => {
      const outcome = make('td', v.outcome, OUTCOMES[v.outcome] ?? v.outcome);
      return make(
        'tr',
        '',
        make('td', '', v.channel),
        make('td', '', v.policy),
        outcome,
        make('td', '', v.rule ?? v.cause ?? ''),
      );
    });
    const head = make('tr', '', ...['channel', 'policy', 'verdict', 'why'].map((name) => make('th', '', name)));
    const table = make('table', '', make('thead', '', head), make('tbody', '', ...rows));
    const details = make('details', '', make('summary', '', title), ...(refusal ? [make('p', 'text', refusal)] : []));
    if (rows.length > 0) details.append(table);
    details.open = withheld;
    this.#verdicts.classList.toggle('withheld', withheld);
    this.#verdicts.append(details);
  }
}

export class AnswerView {
  #handlers;
  /** @type {Map<Step, StepView>} */
  #views = new Map();
  element;

  /**
   * @param {string} model
   * @param {Handlers} handlers
   */
  constructor(model, handlers) {
    this.#handlers = handlers;
    this.element = make('section', 'answer', make('h3', '', model));
    this.element.setAttribute('aria-label', `Answer of ${model}`);
  }

  /** @param {readonly Step[]} steps */
  show(steps) {
    for (const [step, view] of this.#views)
      if (!steps.includes(step)) {
        view.element.remove();
        this.#views.delete(step);
      }
    for (const step of steps) {
      let view = this.#views.get(step);
      if (!view) {
        view = new StepView(step, this.#handlers);
        this.#views.set(step, view);
        this.element.append(view.element);
      }
      view.show();
    }
  }
}
