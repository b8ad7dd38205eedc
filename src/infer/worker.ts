// Entry of the inference thread: steps the runner while there is work, and looks at the mailbox between two steps.
import { serve } from '../base/channel-worker.js';
import { GATHER_MS, joinText } from './gather-text.js';
import type { EngineCalls, EngineInfo, EngineOptions } from './protocol.js';

await serve<EngineCalls, EngineInfo, EngineOptions>(async (options) => {
  const { Runner } = await import('./runner.js');
  const runner = await Runner.open(options);
  const gathers = { ms: GATHER_MS, join: joinText };
  return { info: runner.info, handlers: runner.handlers, gathers, close: () => runner.settle() };
});
