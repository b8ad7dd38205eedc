// Entry of the thread that hashes a large file while the next bytes of it are made.
import { createHash } from 'node:crypto';
import { serve } from './channel-worker.js';
import type { DigestCalls } from './large-file.js';

await serve<DigestCalls, null>(() => {
  const hash = createHash('sha256');
  return {
    info: null,
    handlers: {
      update(bytes) {
        hash.update(bytes);
        return null;
      },
      digest: () => hash.digest('hex'),
    },
  };
});
