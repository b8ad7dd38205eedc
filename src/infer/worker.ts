// Entry of the inference thread: steps the runner while there is work, and looks at the mailbox between two steps.
import { serve } from '../base/channel-worker.js';
import { GATHER_MS, joinText, type PackedText, packer } from './gather-text.js';
import type { EngineInfo, EngineOptions, PackedCalls } from './protocol.js';

await serve<PackedCalls, EngineInfo, EngineOptions>(async (options) => {
  const { Runner } = await import('./runner.js');
  const runner = await Runner.open(options);
  const { handlers } = runner;
  return {
    info: runner.info,
    handlers: {
      ...handlers,
      generate: (request, { signal, emit }) => handlers.generate(request, { signal, emit: packer(emit) }),
    },
    gathers: { ms: GATHER_MS, join: (a, b) => joinText(a as PackedText, b as PackedText) },
    close: () => runner.settle(),
  };
});
