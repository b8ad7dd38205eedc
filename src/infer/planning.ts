// The memory of serving, as the main thread sees it: a promise. The dry run has a thread of its own.
import { runInThread } from '../base/channel.js';
import type { ServingPlan, ServingPlanOptions } from './plan.js';

export type { ServingPlan, ServingPlanOptions } from './plan.js';

/** What the planning thread answers. */
export type PlanCalls = {
  readonly serving: {
    readonly request: ServingPlanOptions & { readonly dir: string };
    readonly event: never;
    readonly result: ServingPlan;
  };
};

/** @throws {ConfigError} context_too_long · {CheckpointError} as openCheckpoint · the signal's reason */
export const planServing = (
  dir: string,
  { signal, ...options }: ServingPlanOptions & { readonly signal?: AbortSignal },
): Promise<ServingPlan> =>
  runInThread<PlanCalls, 'serving'>('infer/plan-worker.js', 'serving', { dir, ...options }, { signal });
