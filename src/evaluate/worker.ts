// Entry of the evaluation thread.
import { serve } from '../base/channel-worker.js';
import type { EvaluateCalls } from './evaluate.js';

await serve<EvaluateCalls, null>(async () => {
  const [{ evaluateLoss }, { logitsOf }] = await Promise.all([import('./held-out-loss.js'), import('./logits.js')]);
  return {
    info: null,
    handlers: {
      eval: (request, { signal, emit }) => evaluateLoss(request, { signal, onProgress: emit }),
      logits: (request, { signal, emit }) => logitsOf(request, { signal, onProgress: emit }),
    },
  };
});
