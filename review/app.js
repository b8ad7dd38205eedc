// The review console: a queue, one item of it, what people do with it. Everything has a key.

import { drawAgreement } from './agreement.js';
import * as api from './api.js';
import { ApiFailure } from './api.js';
import { byId, make, say } from './dom.js';
import { drawItem } from './item.js';
import * as list from './list.js';

/** @typedef {import('./api.js').Item} Item */
/** @typedef {import('./item.js').Action} Action */

const REFRESH_MS = 5000;
const KEYS = [
  ['j, ↓ · k, ↑', 'next · previous item'],
  ['space', 'show or blur the text'],
  ['a', 'approve, once the text was shown'],
  ['r', 'reject'],
  ['l', 'relabel, once the text was shown: a row for the golden set'],
  ['e', 'escalate: somebody else, and two must approve'],
  ['n', 'write a note; Esc leaves it'],
  ['→ · ←', 'next · previous page'],
  ['g', 'queue or agreement'],
  ['?', 'these keys'],
];
const relabelBox = /** @type {HTMLDialogElement} */ (byId('relabel'));
const helpBox = /** @type {HTMLDialogElement} */ (byId('help'));
let me = '';
/** @type {Item | null} */
let item = null;
let shown = false;
/** An action is under way. */
let busy = false;

/**
 * @param {string} text
 * @param {'' | 'good' | 'bad'} [kind]
 */
function tell(text, kind = '') {
  say(byId('link'), text);
  byId('link').className = `status ${kind}`;
}
function tellQueue() {
  const counts = list.counted();
  if (!counts) return;
  const open = counts.states.held + counts.states.escalated;
  tell(
    `${open.toLocaleString('en')} open${counts.waiting > 0 ? `, ${counts.waiting.toLocaleString('en')} wait` : ''}`,
    open === 0 ? 'good' : '',
  );
}
/** @param {unknown} e */
function failed(e) {
  if (e instanceof ApiFailure && e.status === 401) gate();
  else tell(e instanceof Error ? e.message : String(e), 'bad');
}
/** @param {Promise<unknown>} work */
const run = (work) => void work.catch(failed);

function draw() {
  const place = byId('item');
  if (!item) {
    place.replaceChildren();
    return;
  }
  const written = /** @type {HTMLTextAreaElement | null} */ (document.getElementById('note'))?.value ?? '';
  const same = place.dataset.id === item.id;
  place.dataset.id = item.id;
  place.replaceChildren(...drawItem(item, me, shown, { act, veil }));
  if (same) /** @type {HTMLTextAreaElement} */ (byId('note')).value = written;
  else place.scrollTo(0, 0);
}
/** Of several items the last that was asked for counts. */
let opening = 0;
/** @param {string | null} id */
async function open(id) {
  const own = ++opening;
  shown = false;
  // Until the next one is there, no key does anything to the one before.
  item = null;
  if (id === null) {
    draw();
    return;
  }
  const found = await api.item(id);
  if (own !== opening) return;
  item = found;
  draw();
}
function veil() {
  if (!item) return;
  shown = !shown;
  draw();
}

/**
 * @param {Action} action
 * @param {{label?: string, rule?: string}} [more]
 */
async function doIt(action, more = {}) {
  if (!item || busy) return;
  busy = true;
  const { id, policy } = item;
  const note = /** @type {HTMLTextAreaElement} */ (byId('note')).value.trim();
  try {
    const acted = await api.act(id, action, { ...more, ...(note === '' ? {} : { note }) });
    const says = acted.releases
      ? 'approved, and released'
      : acted.wantsSecond
        ? 'approved; somebody else must, too'
        : action === 'relabel'
          ? 'relabelled'
          : acted.state;
    // Another one may have been opened meanwhile.
    if (item?.id === id) {
      item = acted.item;
      /** @type {HTMLTextAreaElement} */ (byId('note')).value = '';
      draw();
    }
    await list.count();
    tellQueue();
    await list.load();
    say(byId('heard'), `${policy}: ${says}`);
  } finally {
    busy = false;
  }
}
/** @param {Action} action */
function act(action) {
  if (!item || busy) return;
  const allowed = [...byId('item').querySelectorAll('.actions button')].some(
    (b) => b.textContent?.toLowerCase().startsWith(action) && !(/** @type {HTMLButtonElement} */ (b).disabled),
  );
  if (!allowed) {
    const wants = action === 'approve' ? item.decidedAt === null : action === 'relabel' && item.content !== '';
    if (wants && !shown) say(byId('heard'), 'Show the text first');
    return;
  }
  if (action !== 'relabel') return run(doIt(action));
  say(byId('relabel-fault'), '');
  /** @type {HTMLInputElement} */ (byId('rule')).value = item.labelRule ?? item.rule ?? '';
  relabelBox.showModal();
}
/** @returns {string} */
const chosenLabel = () => /** @type {HTMLInputElement} */ (relabelBox.querySelector('input[name=label]:checked')).value;
byId('relabel-form').addEventListener('submit', (e) => {
  e.preventDefault();
  const rule = /** @type {HTMLInputElement} */ (byId('rule')).value.trim();
  const label = chosenLabel();
  if (label === 'block' && rule === '') {
    say(byId('relabel-fault'), 'Which rule does it break?');
    return;
  }
  relabelBox.close();
  run(doIt('relabel', label === 'block' ? { label, rule } : { label }));
});
byId('relabel-no').addEventListener('click', () => relabelBox.close());
relabelBox.addEventListener('change', () => {
  /** @type {HTMLInputElement} */ (byId('rule')).disabled = chosenLabel() === 'allow';
});

/** @param {'queue' | 'agreement'} part */
async function go(part) {
  byId('queue').hidden = part !== 'queue';
  byId('agreement').hidden = part !== 'agreement';
  for (const name of ['queue', 'agreement']) {
    if (name === part) byId(`tab-${name}`).setAttribute('aria-current', 'page');
    else byId(`tab-${name}`).removeAttribute('aria-current');
  }
  if (part === 'agreement') {
    const [a] = await Promise.all([api.agreement(30), list.count()]);
    byId('agreement').replaceChildren(...drawAgreement(a, list.counted()));
  }
}

/** Nobody is signed in, or nobody any more. */
function gate() {
  item = null;
  draw();
  for (const id of ['tabs', 'queue', 'agreement', 'keys', 'leave']) byId(id).hidden = true;
  byId('gate').hidden = false;
  say(byId('who'), '');
  tell('signed out');
  byId('key').focus();
}
/** @param {import('./api.js').Session} session */
async function enter(session) {
  me = session.name;
  say(byId('who'), me);
  byId('gate').hidden = true;
  for (const id of ['tabs', 'keys', 'leave']) byId(id).hidden = false;
  await list.count();
  tellQueue();
  await go('queue');
  await list.firstPage();
  byId('rows').focus();
}
async function refresh() {
  if (document.hidden || byId('queue').hidden || busy || document.querySelector('dialog[open]')) return;
  const changed = await list.count();
  tellQueue();
  if (changed) await list.load();
}

/** @type {Record<string, Action>} */
const ACTS = { a: 'approve', r: 'reject', l: 'relabel', e: 'escalate' };
/** @type {Record<string, () => unknown>} */
const DOES = {
  j: () => list.step(1),
  ArrowDown: () => list.step(1),
  k: () => list.step(-1),
  ArrowUp: () => list.step(-1),
  ArrowRight: () => list.turn(1),
  ArrowLeft: () => list.turn(-1),
  ' ': veil,
  n: () => document.getElementById('note')?.focus(),
};
addEventListener('keydown', (e) => {
  const on = /** @type {HTMLElement} */ (e.target);
  if (e.key === 'Escape' && on.id === 'note') byId('rows').focus();
  const writes = on.matches('input, textarea, select') || (e.key === ' ' && on.matches('button, summary, a'));
  if (e.ctrlKey || e.metaKey || e.altKey || writes || byId('tabs').hidden || document.querySelector('dialog[open]'))
    return;
  if (e.key === '?') helpBox.showModal();
  else if (e.key === 'g') run(go(byId('queue').hidden ? 'queue' : 'agreement'));
  else if (!byId('queue').hidden && Object.hasOwn(DOES, e.key)) run(Promise.resolve(DOES[e.key]?.()));
  else if (!byId('queue').hidden && Object.hasOwn(ACTS, e.key)) {
    // A key that is held down decides one item, and none of those that come after it.
    if (!e.repeat) act(/** @type {Action} */ (ACTS[e.key]));
  } else return;
  e.preventDefault();
});
byId('key-form').addEventListener('submit', (e) => {
  e.preventDefault();
  const field = /** @type {HTMLInputElement} */ (byId('key'));
  const given = field.value.trim();
  field.value = '';
  say(byId('key-fault'), '');
  api.signIn(given).then(enter, (/** @type {Error} */ fault) => say(byId('key-fault'), fault.message));
});
byId('leave').addEventListener('click', () => run(api.signOut().then(gate)));
byId('keys').addEventListener('click', () => helpBox.showModal());
byId('tab-queue').addEventListener('click', () => run(go('queue')));
byId('tab-agreement').addEventListener('click', () => run(go('agreement')));
byId('back').addEventListener('click', () => run(list.turn(-1)));
byId('more').addEventListener('click', () => run(list.turn(1)));
byId('filters').addEventListener('change', () => run(list.firstPage()));
for (const [key, does] of KEYS) byId('help-list').append(make('dt', '', make('kbd', '', key)), make('dd', '', does));
list.start(open, failed);
const local = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
byId('plain').hidden = location.protocol === 'https:' || local;
setInterval(() => byId('gate').hidden && run(refresh()), REFRESH_MS);
api.session().then(enter, (/** @type {unknown} */ e) => {
  gate();
  if (!(e instanceof ApiFailure && e.status === 401)) failed(e);
});
