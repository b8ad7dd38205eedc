// Entry of the thread that measures.
import { serve } from '../base/channel-worker.js';
import { HOST } from '../native/backends.js';
import type { BenchCalls } from './threads.js';

await serve<BenchCalls, null>(async () => {
  const [{ bench }, { useDevice }, { measureLimits }, { setThreads }] = await Promise.all([
    import('./bench.js'),
    import('../native/device.js'),
    import('../native/machine.js'),
    import('../native/tensor.js'),
  ]);
  return {
    info: null,
    handlers: {
      bench({ source, options: { device = HOST, memoryLimit = 0, threads, ...options } }, { signal, emit }) {
        if (threads !== undefined) setThreads(threads);
        const { place } = useDevice(device, memoryLimit);
        return bench(source, { ...options, place, signal, onRow: emit });
      },
      limits: (threads) => measureLimits(threads ?? undefined),
    },
  };
});
