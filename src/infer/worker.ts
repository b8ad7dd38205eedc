// Entry of the inference thread: steps the runner while there is work, and looks at the mailbox between two steps.
import { setFlagsFromString } from 'node:v8';
import { serve } from '../base/channel-worker.js';
import { GATHER_MANY, GATHER_MS, joinText, type PackedText, packer } from './gather-text.js';
import { type PackedTokens, TokenPacker } from './pack-tokens.js';
import type { EngineInfo, EngineOptions, PackedCalls } from './protocol.js';

type Told = PackedText | PackedTokens;
const isTokens = (told: Told): told is PackedTokens => typeof told === 'object' && 'numbers' in told;
/** Tokens of a prompt stay apart: all at once they would hold who reads them. */
function join(before: unknown, after: unknown): PackedText | null {
  const [a, b] = [before as Told, after as Told];
  return isTokens(a) || isTokens(b) ? null : joinText(a, b);
}

// Threads that help to collect wait for a core, as the native ones have them all, and a step waits for them. It is of
// the whole process, and read at each collection.
setFlagsFromString('--no-parallel-scavenge');

const code = import('./runner.js');
code.catch(() => {}); // told where it is waited for

await serve<PackedCalls, EngineInfo, EngineOptions>(async (options, caller) => {
  const { Runner } = await code;
  const runner = await Runner.open(options, caller.busy);
  const { handlers } = runner;
  return {
    info: runner.info,
    handlers: {
      ...handlers,
      async generate(request, { signal, emit }) {
        // Who may let the stream wait is to know how far it is.
        const tell = (text: PackedText): void => emit(text, request.brake !== undefined);
        const { answer, ...done } = await handlers.generate(request, { signal, emit: packer(tell) });
        return request.quiet && answer ? { ...done, told: new TokenPacker().pack(answer) } : done;
      },
    },
    gathers: { ms: GATHER_MS, many: GATHER_MANY, join },
    close: () => runner.settle(),
  };
});
