// Entry of the thread that exports and verifies. Each call loads what it needs.
import { serve } from '../base/channel-worker.js';
import type { ExportCalls } from './export.js';

await serve<ExportCalls, null>(() => ({
  info: null,
  handlers: {
    async export(request, { signal, emit }) {
      const { runExport } = await import('./run-export.js');
      return runExport(request, { signal, onProgress: emit });
    },
    verify: async (request, { signal }) => (await import('./verify-export.js')).verifyExport(request, signal),
  },
}));
