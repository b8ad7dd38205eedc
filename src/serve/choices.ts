// Several answers to one request: their seeds, and what they give as it comes.
import { mapped } from '../base/mapped.js';
import type { GenerateRequest } from '../infer/protocol.js';

/** Answers begin with seeds of their own; the first has the request's. */
export function withSeed(request: GenerateRequest, choice: number): GenerateRequest {
  if (choice === 0) return request;
  const { sampling = {} } = request;
  const seed = ((sampling.seed ?? 0) + choice * SEED_STEP) % Number.MAX_SAFE_INTEGER;
  return { ...request, sampling: { ...sampling, seed } };
}
const SEED_STEP = 0x9e3779b97f5;

interface From<T> {
  readonly from: number;
  readonly value: T;
}

/**
 * What several give, as it comes; leaving the loop, or one that fails, ends all.
 * @param atOnce so many run; the others follow in their order
 */
export function merged<T>(
  all: readonly AsyncGenerator<T, void, void>[],
  atOnce: number = all.length,
): AsyncIterable<From<T>> {
  return all.length === 1 && all[0] ? mapped(all[0], (value) => ({ from: 0, value })) : several(all, atOnce);
}
async function* several<T>(
  all: readonly AsyncGenerator<T, void, void>[],
  atOnce: number,
): AsyncGenerator<From<T>, void, void> {
  const next = (from: number): Promise<{ readonly from: number; readonly got: IteratorResult<T, void> }> => {
    const asked = (all[from] as AsyncGenerator<T, void, void>).next().then((got) => ({ from, got }));
    // It may fail while nobody waits, as this loop stands at its `yield`: that is told by the next race.
    asked.catch(() => {});
    return asked;
  };
  const open = new Map(all.slice(0, atOnce).map((_, i) => [i, next(i)]));
  let begun = open.size;
  try {
    while (open.size > 0) {
      const { from, got } = await Promise.race(open.values());
      if (!got.done) {
        // Of several that are there the one that was last waits longest.
        open.delete(from);
        open.set(from, next(from));
        yield { from, value: got.value };
        continue;
      }
      open.delete(from);
      if (begun < all.length) open.set(begun, next(begun++));
    }
  } finally {
    for (const g of all) void g.return().catch(() => {});
  }
}
