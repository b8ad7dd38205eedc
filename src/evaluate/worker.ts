// Entry of the evaluation thread.
import { serve } from '../base/channel-worker.js';
import type { EvaluateCalls } from './evaluate.js';

await serve<EvaluateCalls, null>(async () => {
  const [{ evaluateLoss }, { heldOutPrompts }, { logitsOf }] = await Promise.all([
    import('./held-out-loss.js'),
    import('./held-out-prompts.js'),
    import('./logits.js'),
  ]);
  return {
    info: null,
    handlers: {
      eval: (request, { signal, emit }) => evaluateLoss(request, { signal, onProgress: emit }),
      prompts: (request, { signal }) => heldOutPrompts(request, signal),
      logits: (request, { signal, emit }) => logitsOf(request, { signal, onProgress: emit }),
    },
  };
});
