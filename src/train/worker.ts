// Entry of the training thread. Each call loads what it needs: what the others need takes longer than many a call.
import { serve } from '../base/channel-worker.js';
import type { TrainCalls } from './train.js';

await serve<TrainCalls, null>(() => ({
  info: null,
  handlers: {
    async train(request, { signal, emit }) {
      const { runTraining } = await import('./session.js');
      return runTraining(request, {
        signal,
        onProgress: emit,
        onReference: (reference) => emit({ reference }),
        onNotice: (notice) => emit({ notice }),
      });
    },
    plan: async (request, { signal }) => (await import('./plan.js')).planRecipe(request, signal),
    check: async (request, hooks) => (await import('./check-data.js')).checkFiles(request, hooks),
    convert: async (request, hooks) => (await import('./convert-data.js')).convertRows(request, hooks),
  },
}));
