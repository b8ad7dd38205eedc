// Entry of the thread that exports and verifies.
import { serve } from '../base/channel-worker.js';
import type { ExportCalls } from './export.js';

await serve<ExportCalls, null>(async () => {
  const [{ exportPeft }, { verifyExport }] = await Promise.all([
    import('./export-peft.js'),
    import('./verify-export.js'),
  ]);
  return {
    info: null,
    handlers: {
      export: (request, { signal }) => exportPeft(request, signal),
      verify: (request, { signal }) => verifyExport(request, signal),
    },
  };
});
