// One item: what was held, why, in which conversation, and what people did with it. What anybody wrote is behind a veil
// until it is asked for, each time anew.
import { button, channelChip, make, span } from './dom.js';

/** @typedef {import('./api.js').Item} Item */
/** @typedef {'approve' | 'reject' | 'relabel' | 'escalate'} Action */

/**
 * @typedef {{act: (action: Action) => void, veil: () => void}} Does
 */

/** @param {number} ms */
const time = (ms) => new Date(ms).toISOString().replace('T', ' ').slice(0, 19);

/** @param {readonly (readonly [string, string | Node | null])[]} facts */
function table(facts) {
  const dl = make('dl', 'facts');
  for (const [name, value] of facts)
    if (value !== null && value !== '') dl.append(make('dt', '', name), make('dd', '', value));
  return dl;
}

/** @param {Item} item */
function headline(item) {
  const what =
    item.verdict === 'block'
      ? `breaks ${item.rule ?? 'a rule'}`
      : item.verdict === 'unjudged'
        ? `not judged${item.cause ? ` (${item.cause})` : ''}`
        : 'allowed';
  return make('h2', '', channelChip(item.channel), ` ${item.policy}: ${what}`);
}
/** @param {Item} item @param {string} me */
function standing(item, me) {
  const p = make('p', 'standing');
  const say = (/** @type {string} */ text, /** @type {string} */ kind) => p.append(make('span', `mark ${kind}`, text));
  if (item.state === 'approved')
    say(`approved by ${item.decidedBy}${item.releasedAt === null ? ', recorded' : ', released'}`, 'approved');
  if (item.state === 'rejected') say(`rejected by ${item.decidedBy}`, 'rejected');
  if (item.state === 'escalated') say('escalated', 'escalated');
  if (item.waitUntil !== null) say(`the request waits ${span(item.waitUntil - Date.now())} more`, 'waits');
  if (item.wantsSecond)
    say(
      item.firstBy === me ? 'you approved it; somebody else must, too' : `approved by ${item.firstBy}; wants a second`,
      '',
    );
  else if (item.twoPersons && item.decidedAt === null) say('two must approve', '');
  if (item.label) say(`labelled ${item.label}${item.labelRule ? ` ${item.labelRule}` : ''} by ${item.labelledBy}`, '');
  return p;
}

/** @param {Item} item */
function context(item) {
  const details = make('details', 'context');
  const n = item.context.length;
  details.append(make('summary', '', `Conversation before it, ${n} message${n === 1 ? '' : 's'}`));
  if (item.contextCut) details.append(make('p', 'note', 'Earlier messages are not kept.'));
  for (const m of item.context)
    details.append(
      make(
        'div',
        'message',
        make('span', 'role', m.channel ? `${m.role}, ${m.channel}` : m.role),
        make('p', 'text', m.content),
      ),
    );
  return details;
}
/** @param {Item} item */
function verdicts(item) {
  const t = make('table', 'verdicts');
  t.append(make('tr', '', ...['Policy', 'Verdict', 'Rule', 'Score'].map((h) => make('th', '', h))));
  for (const v of item.verdicts)
    t.append(
      make(
        'tr',
        '',
        make('td', '', v.policy),
        make('td', v.outcome, v.outcome === 'unjudged' && v.cause ? `unjudged: ${v.cause}` : v.outcome),
        make('td', '', v.rule ?? ''),
        make('td', '', v.score === undefined ? '' : v.score.toFixed(2)),
      ),
    );
  return t;
}
/** @param {Item} item */
function history(item) {
  const ol = make('ol', 'history');
  for (const a of item.actions) {
    const label = a.action === 'relabel' ? ` to ${a.label}${a.rule ? ` ${a.rule}` : ''}` : '';
    const li = make('li', '', make('strong', '', a.who), ` ${a.action}${label} `, make('span', 'note', time(a.at)));
    if (a.receipt) li.append(make('span', 'note', ` · receipt ${a.receipt}`));
    if (a.note) li.append(make('p', 'text', a.note));
    ol.append(li);
  }
  return ol;
}

/**
 * @param {Item} item
 * @param {string} me
 * @param {boolean} shown
 * @param {Does} does
 */
export function drawItem(item, me, shown, does) {
  const open = item.decidedAt === null;
  const veil = make('div', shown ? 'veil' : 'veil on');
  veil.id = 'veil';
  veil.inert = !shown;
  veil.setAttribute('aria-hidden', String(!shown));
  veil.append(
    make('p', 'text content', item.content || 'This text is no longer kept.'),
    make('h3', '', 'Why'),
    make('p', 'text', item.rationale || 'The judge gave no reason.'),
    context(item),
  );
  const show = button(shown ? 'Blur' : 'Show the text', 'space', does.veil, shown ? '' : 'main');
  show.id = 'show';
  const approve = button('Approve', 'a', () => does.act('approve'), 'good');
  approve.disabled = !open || !shown || (item.wantsSecond && item.firstBy === me);
  approve.title = shown ? '' : 'Show the text first';
  const reject = button('Reject', 'r', () => does.act('reject'), 'bad');
  reject.disabled = !open;
  const escalate = button('Escalate', 'e', () => does.act('escalate'));
  escalate.disabled = item.state !== 'held';
  const relabel = button('Relabel', 'l', () => does.act('relabel'));
  relabel.disabled = item.content === '' || !shown;
  relabel.title = shown ? '' : 'Show the text first';
  const note = make('textarea', 'note-field');
  note.id = 'note';
  note.rows = 1;
  note.placeholder = 'Note for the record (n)';
  note.setAttribute('aria-label', 'Note');
  note.maxLength = 4000;
  return [
    headline(item),
    standing(item, me),
    make('div', 'actions', show, make('span', 'gap'), approve, reject, relabel, escalate),
    note,
    veil,
    verdicts(item),
    ...(item.actions.length > 0 ? [make('h3', '', 'What was done'), history(item)] : []),
    make('h3', '', 'Facts'),
    table([
      ['Item', item.id],
      ['Held', `${time(item.at)} UTC`],
      ['Model', item.model],
      ['Answer', item.choice > 0 ? `${item.request}, choice ${item.choice}` : item.request],
      ['Key', item.owner],
      ['Size', `${item.bytes.toLocaleString('en')} bytes, sha256 ${item.contentSha256.slice(0, 16)}…`],
      ['Judge', item.judge],
      ['Policy', item.policyDigest === '' ? null : `sha256 ${item.policyDigest.slice(0, 16)}…`],
      ['Receipt', item.receipt],
    ]),
  ];
}
