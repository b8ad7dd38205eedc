// The page: a question goes to one or two models at once, and what they stream is shown as it comes.
import { AnswerView } from './answer.js';
import { ApiFailure, key, keysWanted, listModels, streamChat } from './api.js';
import { isCalling, isWithheld, messagesOf, newStep, take } from './conversation.js';
import { curlOf } from './curl.js';
import { byId, make, say } from './dom.js';
import { chosenModels, fault, requestFields, setModels, systemPrompt } from './settings.js';

/** @typedef {import('./conversation.js').Exchange} Exchange */
/** @typedef {import('./conversation.js').Run} Run */
/** @typedef {import('./conversation.js').Step} Step */

const EXAMPLES = [
  'Please book a table for 4 people on friday at 19:30 for Rossi',
  'What is 17 × 23? Think before you answer.',
  'Explain in two sentences how tempering makes steel tough.',
];
const text = /** @type {HTMLTextAreaElement} */ (byId('text'));
const talk = byId('talk');

/** @type {Exchange[]} */
let exchanges = [];
/** @type {Map<Run, AnswerView>} */
const views = new Map();
/** What streams now. @type {Map<Run, AbortController>} */
const running = new Map();

/** What has changed since the last picture. @type {Set<Run>} */
const changed = new Set();
/** @param {Run} run */
function draw(run) {
  if (changed.size === 0) requestAnimationFrame(drawAll);
  changed.add(run);
}
function drawAll() {
  const root = document.documentElement;
  // Who reads further up stays there.
  const follows = root.scrollHeight - scrollY - innerHeight < 80;
  for (const run of changed) views.get(run)?.show(run.steps);
  changed.clear();
  if (follows) scrollTo(0, root.scrollHeight);
}
function tellRunning() {
  byId('stop').hidden = running.size === 0;
  byId('send').hidden = running.size > 0;
}

/** @param {Step} step */
function outcome(step) {
  if (step.state === 'stopped') return 'stopped';
  if (step.state === 'failed') return step.fault ?? 'failed';
  if (isWithheld(step)) return 'withheld';
  return isCalling(step)
    ? `calls ${step.calls.map((c) => c.name).join(', ')} and waits for the result`
    : 'has answered';
}

/**
 * One request of a run.
 * @param {Exchange} exchange
 * @param {Run} run
 */
async function ask(exchange, run) {
  const column = exchange.runs.indexOf(run);
  const upTo = exchanges.slice(0, exchanges.indexOf(exchange) + 1);
  const messages = messagesOf(upTo, column, systemPrompt());
  const stream = { stream: true, stream_options: { include_usage: true } };
  const step = newStep({ model: run.model, messages, ...requestFields(), ...stream }, performance.now());
  run.steps.push(step);
  const stop = new AbortController();
  running.set(run, stop);
  tellRunning();
  draw(run);
  try {
    for await (const chunk of streamChat(step.body, stop.signal)) {
      take(step, chunk, performance.now());
      draw(run);
    }
    step.state = 'done';
  } catch (e) {
    step.state = stop.signal.aborted ? 'stopped' : 'failed';
    if (!stop.signal.aborted) step.fault = faultOf(e);
    if (e instanceof ApiFailure && e.status === 401) refused();
  } finally {
    running.delete(run);
    tellRunning();
    changed.add(run);
    drawAll(); // what is announced is there
    say(byId('heard'), `${run.model} ${outcome(step)}`);
  }
}
/** @param {unknown} e */
function faultOf(e) {
  if (!(e instanceof ApiFailure)) return `this page failed: ${String(e)}`;
  const later = e.retryAfter === null ? '' : `; come again in ${e.retryAfter} s`;
  return `${e.status > 0 ? `${e.status}: ` : ''}${e.message}${later}`;
}

/** @param {Step} step */
async function copy(step) {
  const command = curlOf(new URL('v1/chat/completions', document.baseURI).href, step.body, key.get() !== null);
  try {
    await navigator.clipboard.writeText(command);
    return true;
  } catch {
    // No clipboard where the connection is not secure, or the browser asks and gets a no.
    const box = /** @type {HTMLTextAreaElement} */ (byId('copy-text'));
    box.value = command;
    /** @type {HTMLDialogElement} */ (byId('copy')).showModal();
    box.select();
    return false;
  }
}

function send() {
  const said = text.value.trim();
  if (said === '' || running.size > 0) return;
  const wrong = fault() ?? (chosenModels().includes('') ? 'there is no model' : null);
  if (wrong !== null) {
    openSettings(true);
    tellLink(wrong, 'bad');
    return;
  }
  tellLink();
  byId('empty').hidden = true;
  const exchange = { text: text.value, runs: chosenModels().map((model) => ({ model, steps: [] })) };
  exchanges.push(exchange);
  const answers = make('div', exchange.runs.length > 1 ? 'answers two' : 'answers');
  for (const run of exchange.runs) {
    const view = new AnswerView(run.model, {
      answered() {
        text.focus();
        void ask(exchange, run);
      },
      again(step) {
        run.steps = run.steps.filter((s) => s !== step);
        void ask(exchange, run);
      },
      copy,
    });
    views.set(run, view);
    answers.append(view.element);
  }
  talk.append(make('article', 'exchange', make('div', 'asked text', exchange.text), answers));
  text.value = '';
  grow();
  for (const run of exchange.runs) void ask(exchange, run);
  scrollTo(0, document.documentElement.scrollHeight);
}
/** As high as what is written. */
function grow() {
  text.style.height = 'auto';
  text.style.height = `${text.scrollHeight + 2}px`;
}
function stop() {
  for (const controller of running.values()) controller.abort();
}
function fresh() {
  stop();
  exchanges = [];
  views.clear();
  talk.replaceChildren();
  byId('empty').hidden = false;
  text.focus();
}

/** @param {boolean} open */
function openSettings(open) {
  document.body.classList.toggle('open', open);
  byId('toggle').setAttribute('aria-expanded', String(open));
}

let ready = '';
/**
 * @param {string} [said] nothing: how it is by itself
 * @param {'' | 'good' | 'bad'} [kind]
 */
function tellLink(said = ready, kind = said === ready ? 'good' : '') {
  say(byId('link'), said);
  byId('link').className = `status ${kind}`;
}
/** The key is none, or none any more. */
function refused() {
  byId('gate').hidden = false;
  byId('settings').hidden = true;
  byId('empty').hidden = true;
  byId('key-kept').hidden = true;
  byId('composer').hidden = true;
  say(byId('key-fault'), key.get() === null ? '' : 'The server does not know this key.');
  key.forget();
  ready = 'wants a key';
  tellLink(ready, 'bad');
  byId('key').focus();
}
async function connect() {
  if (keysWanted && key.get() === null) {
    refused();
    return;
  }
  try {
    const models = await listModels();
    setModels(models);
    ready = models.length === 1 ? '1 model' : `${models.length} models`;
    byId('gate').hidden = true;
    byId('settings').hidden = false;
    byId('composer').hidden = false;
    byId('key-kept').hidden = key.get() === null;
    byId('empty').hidden = exchanges.length > 0;
    tellLink();
  } catch (e) {
    if (e instanceof ApiFailure && e.status === 401) refused();
    else tellLink(faultOf(e), 'bad');
  }
}

byId('composer').addEventListener('submit', (e) => {
  e.preventDefault();
  send();
});
text.addEventListener('keydown', (e) => {
  if (e.key !== 'Enter' || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  send();
});
text.addEventListener('input', grow);
byId('stop').addEventListener('click', stop);
byId('fresh').addEventListener('click', fresh);
byId('toggle').addEventListener('click', () => openSettings(!document.body.classList.contains('open')));
addEventListener('keydown', (e) => {
  if (e.key !== 'Escape' || e.isComposing) return;
  if (running.size > 0) stop();
  else openSettings(false);
});
byId('key-form').addEventListener('submit', (e) => {
  e.preventDefault();
  const field = /** @type {HTMLInputElement} */ (byId('key'));
  const given = field.value.trim();
  field.value = '';
  if (!/^[\x21-\x7e]+$/.test(given)) {
    say(byId('key-fault'), 'That is no key: it has spaces, or letters that keys do not have.');
    return;
  }
  key.keep(given);
  void connect();
});
byId('forget').addEventListener('click', () => {
  stop();
  key.forget();
  refused();
});
for (const example of EXAMPLES) {
  const button = make('button', '', example);
  button.type = 'button';
  button.addEventListener('click', () => {
    text.value = example;
    grow();
    text.focus();
  });
  byId('examples').append(button);
}
// Adapters come and go while the server runs.
addEventListener('focus', () => {
  if (byId('gate').hidden && running.size === 0) void connect();
});
const local = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
byId('plain').hidden = location.protocol === 'https:' || local;
void connect().then(() => text.focus());
