// Entry of the thread that plans serving.
import { serve } from '../base/channel-worker.js';
import type { PlanCalls } from './planning.js';

await serve<PlanCalls, null>(async () => {
  const { dryServing } = await import('./plan.js');
  return { info: null, handlers: { serving: ({ dir, ...options }) => dryServing(dir, options) } };
});
