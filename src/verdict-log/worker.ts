// Entry of the thread that reads logs.
import { serve } from '../base/channel-worker.js';
import type { LogCalls } from './threads.js';

await serve<LogCalls, null>(async () => {
  const [{ verifyLog }, { checkpointsOf, proveGrowth, proveRecord }, { showRecords }] = await Promise.all([
    import('./verify.js'),
    import('./prove.js'),
    import('./show.js'),
  ]);
  return {
    info: null,
    handlers: {
      verify: (request, { signal, emit }) => verifyLog(request, { signal, onProgress: emit }),
      prove: (request, { signal, emit }) => proveRecord(request, { signal, onProgress: emit }),
      grow: (request, { signal, emit }) => proveGrowth(request, { signal, onProgress: emit }),
      checkpoints: ({ dir }, { signal }) => checkpointsOf(dir, { signal }),
      show: (request, { signal, emit }) => showRecords(request, { signal, onProgress: emit }),
    },
  };
});
