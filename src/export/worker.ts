// Entry of the thread that exports and verifies.
import { serve } from '../base/channel-worker.js';
import type { ExportCalls } from './export.js';

await serve<ExportCalls, null>(async () => {
  const [{ runExport }, { verifyExport }] = await Promise.all([
    import('./run-export.js'),
    import('./verify-export.js'),
  ]);
  return {
    info: null,
    handlers: {
      export: (request, { signal, emit }) => runExport(request, { signal, onProgress: emit }),
      verify: (request, { signal }) => verifyExport(request, signal),
    },
  };
});
