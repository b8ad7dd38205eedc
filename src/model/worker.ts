// Entry of the thread that makes and describes checkpoints.
import { serve } from '../base/channel-worker.js';
import type { ModelCalls } from './threads.js';

await serve<ModelCalls, null>(async () => {
  const [{ initCheckpoint }, { inspectCheckpoint }] = await Promise.all([import('./init.js'), import('./inspect.js')]);
  return {
    info: null,
    handlers: {
      init: ({ dir, model, ...options }, { signal, emit }) =>
        initCheckpoint(dir, model, { ...options, signal, onProgress: (done, total) => emit([done, total]) }),
      inspect: ({ dir, full }, { signal, emit }) => inspectCheckpoint(dir, { full, signal, onProgress: emit }),
    },
  };
});
