// Entry of the thread that measures.
import { serve } from '../base/channel-worker.js';
import { HOST } from '../native/backends.js';
import type { BenchCalls } from './threads.js';

await serve<BenchCalls, null>(async () => {
  const [{ bench }, { cacheDigests }, { useDevice }, { measureLimits }, { setThreads }] = await Promise.all([
    import('./bench.js'),
    import('../model/q8.js'),
    import('../native/device.js'),
    import('../native/machine.js'),
    import('../native/tensor.js'),
  ]);
  return {
    info: null,
    handlers: {
      async bench(
        { source, options: { device = HOST, memoryLimit = 0, threads, denseCache, ...options } },
        { signal, emit },
      ) {
        if (threads !== undefined) setThreads(threads);
        const { place } = useDevice(device, memoryLimit);
        const cached = denseCache && options.denseDtype === 'q8' && typeof source === 'string';
        const digests = cached ? await cacheDigests(source, signal) : null;
        return bench(source, { ...options, denseCache: digests, place, signal, onRow: emit });
      },
      limits: (threads) => measureLimits(threads ?? undefined),
    },
  };
});
