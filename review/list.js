// The queue as lines, a page at a time: whatever is in it, no more lines than a page has are drawn. No line holds
// anything of a text.
import * as api from './api.js';
import { byId, channelChip, make, say, span } from './dom.js';

/** @typedef {import('./api.js').Summary} Summary */
/** @typedef {import('./api.js').Counts} Counts */

const PAGE = 100;
const ALL = '';
const rows = byId('rows');
const which = /** @type {HTMLSelectElement} */ (byId('which'));
const policy = /** @type {HTMLSelectElement} */ (byId('policy'));
const channel = /** @type {HTMLSelectElement} */ (byId('channel'));

/** @type {readonly Summary[]} */
let items = [];
/** Where this page begins, and those before it; '' is the first. @type {string[]} */
let begins = [''];
/** @type {string | null} */
let next = null;
/** @type {string | null} */
let chosen = null;
/** @type {Counts | null} */
let known = null;
/** Told of the item that is looked at. @type {(id: string | null) => Promise<void>} */
let onChoose = async () => {};
/** Told of what went wrong where nobody waits. @type {(e: unknown) => void} */
let onFault = () => {};
/** Of several answers the last that was asked for counts. */
let asked = 0;

/** @param {Summary} s */
function line(s) {
  const row = make('div', `row ${s.state}`);
  row.id = `row-${s.id}`;
  row.setAttribute('role', 'option');
  row.setAttribute('aria-selected', String(s.id === chosen));
  const what = s.verdict === 'unjudged' ? `not judged${s.cause ? `: ${s.cause}` : ''}` : s.verdict;
  const head = make('span', 'line', channelChip(s.channel), make('strong', '', s.policy));
  if (s.rule) head.append(make('span', 'rule', s.rule));
  const facts = make('span', 'note', `${what} · ${s.model} · ${span(Date.now() - s.at)} ago`);
  const marks = make('span', 'marks');
  if (s.waitUntil !== null) marks.append(make('span', 'mark waits', `waits ${span(s.waitUntil - Date.now())}`));
  if (s.wantsSecond) marks.append(make('span', 'mark', 'wants a second'));
  if (s.state !== 'held') marks.append(make('span', `mark ${s.state}`, s.state));
  if (s.label) marks.append(make('span', 'mark', `labelled ${s.label}`));
  row.append(head, facts, marks);
  row.addEventListener('click', () => void choose(s.id).catch(onFault));
  return row;
}
function total() {
  if (!known || policy.value !== ALL || channel.value !== ALL) return null;
  const { states, waiting, relabelled } = known;
  const sums = {
    open: states.held + states.escalated,
    decided: states.approved + states.rejected,
    ...states,
    ...{ waiting, relabelled },
  };
  return sums[/** @type {keyof typeof sums} */ (which.value)];
}
function draw() {
  rows.replaceChildren(...items.map(line));
  rows.setAttribute('aria-activedescendant', chosen === null ? '' : `row-${chosen}`);
  const from = (begins.length - 1) * PAGE;
  const of = total();
  say(
    byId('place'),
    items.length === 0
      ? ''
      : `${from + 1} to ${from + items.length}${of === null ? '' : ` of ${of.toLocaleString('en')}`}`,
  );
  byId('none').hidden = items.length > 0;
  say(byId('none'), which.value === 'open' ? 'Nothing waits for review.' : 'There is nothing here.');
  /** @type {HTMLButtonElement} */ (byId('back')).disabled = begins.length < 2;
  /** @type {HTMLButtonElement} */ (byId('more')).disabled = next === null;
}

/**
 * @param {string | null} id
 * @param {boolean} [again] though it is the one already
 */
export async function choose(id, again = false) {
  if (id === chosen && !again) return;
  chosen = id;
  for (const row of rows.children) row.setAttribute('aria-selected', String(row.id === `row-${id}`));
  rows.setAttribute('aria-activedescendant', id === null ? '' : `row-${id}`);
  if (id !== null) byId(`row-${id}`)?.scrollIntoView({ block: 'nearest' });
  await onChoose(id);
}

/**
 * Reads the page anew; what was chosen stays chosen where it is still there.
 * @param {'same' | 'first' | 'last'} [then] what is chosen where it is not
 */
export async function load(then = 'same') {
  const own = ++asked;
  const at = items.findIndex((s) => s.id === chosen);
  const page = await api.items({
    queue: which.value,
    limit: String(PAGE),
    ...(policy.value === ALL ? {} : { policy: policy.value }),
    ...(channel.value === ALL ? {} : { channel: channel.value }),
    ...(begins.at(-1) === '' ? {} : { after: /** @type {string} */ (begins.at(-1)) }),
  });
  if (own !== asked) return;
  if (page.items.length === 0 && begins.length > 1) {
    begins.pop();
    await load('last');
    return;
  }
  items = page.items;
  next = page.next;
  draw();
  if (then === 'same' && items.some((s) => s.id === chosen)) return;
  const index = then === 'last' ? items.length - 1 : then === 'first' ? 0 : Math.max(0, Math.min(at, items.length - 1));
  await choose(items[index]?.id ?? null, true);
}
/** @param {1 | -1} by */
export async function turn(by) {
  if (by > 0 && next !== null) {
    begins.push(next);
    await load('first');
  } else if (by < 0 && begins.length > 1) {
    begins.pop();
    await load('last');
  }
}
/** @param {1 | -1} by */
export async function step(by) {
  const at = items.findIndex((s) => s.id === chosen) + by;
  const found = items[at];
  if (found) await choose(found.id);
  else await turn(by);
}

/**
 * @param {HTMLSelectElement} select
 * @param {readonly string[]} values
 * @param {string} all
 */
function fill(select, values, all) {
  const options = [ALL, ...values];
  if (options.join('\n') === [...select.options].map((o) => o.value).join('\n')) return;
  const before = select.value;
  select.replaceChildren(
    ...options.map((value) => {
      const o = make('option', '', value === ALL ? all : value);
      o.value = value;
      return o;
    }),
  );
  select.value = options.includes(before) ? before : ALL;
}
/** @returns whether the queue is another one than before */
export async function count() {
  const counts = await api.counts();
  const changed = JSON.stringify(counts) !== JSON.stringify(known);
  known = counts;
  fill(policy, counts.policies, 'All policies');
  fill(channel, counts.channels, 'All channels');
  return changed;
}
export const counted = () => known;

/**
 * @param {(id: string | null) => Promise<void>} chooses
 * @param {(e: unknown) => void} fault
 */
export function start(chooses, fault) {
  onChoose = chooses;
  onFault = fault;
}
export const firstPage = () => {
  begins = [''];
  return load('first');
};
