// Entry of the evaluation thread. Each call loads what it needs.
import { serve } from '../base/channel-worker.js';
import type { EvaluateCalls } from './evaluate.js';

await serve<EvaluateCalls, null>(() => ({
  info: null,
  handlers: {
    async eval(request, { signal, emit }) {
      const { evaluateLoss } = await import('./held-out-loss.js');
      return evaluateLoss(request, { signal, onProgress: emit });
    },
    prompts: async (request, { signal }) => (await import('./held-out-prompts.js')).heldOutPrompts(request, signal),
    async logits(request, { signal, emit }) {
      const { logitsOf } = await import('./logits.js');
      return logitsOf(request, { signal, onProgress: emit });
    },
  },
}));
