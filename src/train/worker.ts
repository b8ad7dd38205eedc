// Entry of the training thread.
import { serve } from '../base/channel-worker.js';
import type { TrainCalls } from './train.js';

await serve<TrainCalls, null>(async () => {
  const [{ runTraining }, { planRecipe }, { checkFiles }, { convertRows }] = await Promise.all([
    import('./session.js'),
    import('./plan.js'),
    import('./check-data.js'),
    import('./convert-data.js'),
  ]);
  return {
    info: null,
    handlers: {
      train: (request, { signal, emit }) =>
        runTraining(request, {
          signal,
          onProgress: emit,
          onReference: (reference) => emit({ reference }),
          onNotice: (notice) => emit({ notice }),
        }),
      plan: (request, { signal }) => planRecipe(request, signal),
      check: (request, hooks) => checkFiles(request, hooks),
      convert: (request, hooks) => convertRows(request, hooks),
    },
  };
});
