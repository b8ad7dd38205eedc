// What people said of items, found by the request that put them into the queue. Where an item wants two people, two
// must say the same and nobody another thing: here a word counts for as much as its contrary.
import type { Label } from './review-types.js';
import type { Store } from './store.js';

export interface Word {
  readonly label: Label;
  /** Names of those who said so. */
  readonly by: readonly string[];
}
/** null: it is in the queue, and nobody has the last word yet. */
export type Words = ReadonlyMap<string, Word | null>;
const CHUNK = 500;

/** Requests that are in the queue, and what was said of them; of several items of one request all must say the same. */
export async function wordsOn(store: Store, requests: readonly string[]): Promise<Words> {
  const found = new Map<string, Word | null>();
  for (let from = 0; from < requests.length; from += CHUNK) {
    const some = requests.slice(from, from + CHUNK);
    const { rows, said } = await store.read(async (db) => {
      const rows = await db
        .selectFrom('reviews')
        .select(['id', 'request', 'state', 'two_persons', 'label', 'labelled_by', 'decided_by'])
        .where('request', 'in', some)
        .execute();
      const ids = rows.filter((r) => r.two_persons === 1).map((r) => r.id);
      const actions = db.selectFrom('review_actions').select(['review', 'who', 'label']).where('counts', '=', 1);
      return { rows, said: ids.length === 0 ? [] : await actions.where('review', 'in', ids).execute() };
    });
    for (const row of rows) {
      const last = said.filter((a) => a.review === row.id);
      const word = row.two_persons === 1 ? agreed(last) : ofOne(row);
      const before = found.get(row.request);
      const same = before === undefined || before?.label === word?.label;
      found.set(row.request, same ? word : null);
    }
  }
  return found;
}

interface Row {
  readonly state: string;
  readonly label: Label | null;
  readonly labelled_by: string | null;
  readonly decided_by: string | null;
}
function ofOne({ state, label, labelled_by: labeller, decided_by: decider }: Row): Word | null {
  if (label !== null) return { label, by: labeller === null ? [] : [labeller] };
  const by = decider === null ? [] : [decider];
  if (state === 'approved') return { label: 'allow', by };
  return state === 'rejected' ? { label: 'block', by } : null;
}
function agreed(said: readonly { readonly who: string; readonly label: Label | null }[]): Word | null {
  const by = [...new Set(said.map((a) => a.who))].sort();
  const [label = null] = said.map((a) => a.label);
  return by.length >= 2 && label !== null && said.every((a) => a.label === label) ? { label, by } : null;
}
