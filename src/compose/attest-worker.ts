// Entry of the thread that signs, verifies and audits folders.
import { serve } from '../base/channel-worker.js';
import type { AttestCalls } from './attest.js';

await serve<AttestCalls, null>(async () => {
  const work = await import('./attest-work.js');
  return {
    info: null,
    handlers: {
      sign: (request, { signal, emit }) => work.sign(request, { signal, onProgress: emit }),
      verify: (request, { signal, emit }) => work.verify(request, { signal, onProgress: emit }),
      audit: (request, { signal, emit }) => work.audit(request, { signal, onProgress: emit }),
    },
  };
});
