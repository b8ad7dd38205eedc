// What labels of people made of a decision: how many there are, by whom, which outcomes they changed, and what would
// have been decided without them.
import type { GateVerdict, Labelled } from './decision.js';
import { ARMS, type Arm, type Labels, type Outcomes } from './outcomes.js';

const keyOf = (metric: unknown, slice: unknown, prompt: unknown, sample: unknown, arm: Arm): string =>
  JSON.stringify([metric, slice, prompt, sample, arm]);

/** @param without what the outcomes alone would give */
export function labelledOf(labels: Labels, o: Outcomes, without: GateVerdict): Labelled {
  const values = new Map<string, number | null>();
  const metrics = new Set(labels.rows.map((l) => l.metric));
  for (let i = 0; i < o.count; i++) {
    const metric = o.metrics[o.metric[i] as number] as string;
    if (!metrics.has(metric)) continue;
    const value = o.value[i] as number;
    const arm = ARMS[o.arm[i] as number] as Arm;
    const key = keyOf(metric, o.slices[o.slice[i] as number], o.prompts[o.prompt[i] as number], o.sample[i], arm);
    values.set(key, Number.isNaN(value) ? null : value);
  }
  const changed = labels.rows.flatMap((l) =>
    ARMS.flatMap((arm) => {
      const to = l[arm];
      const from = values.get(keyOf(l.metric, l.slice ?? '', l.prompt, l.sample, arm)) ?? null;
      if (to === undefined || to === from) return [];
      const { metric, slice = null, prompt, sample, by } = l;
      return [{ metric, slice, prompt, sample, arm, from, to, by }];
    }),
  );
  return {
    pairs: labels.rows.length,
    by: [...new Set(labels.rows.map((l) => l.by))].sort(),
    unbound: labels.rows.filter((l) => l.of === undefined).length,
    changed,
    without,
  };
}
