// `temper eval`: held-out loss per channel, and exact match of generated answers.
import { basename } from 'node:path';
import { type Command, collect, examples, integerIn, interruptSignal, printJson } from '../command.js';
import { createProgress, sayDevice } from '../progress.js';
import { print } from '../terminal.js';

interface Options {
  readonly set: readonly string[];
  readonly adapter?: string;
  readonly match: boolean;
  readonly maxTokens: number;
  readonly limit?: number;
  readonly threads?: number;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'eval',
  summary: 'held-out loss, exact match, per-channel loss',
  register(program) {
    program
      .command('eval')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nOf a run: what it trained. Of a recipe: its base, with adapter.from ` +
          'if that is given. Rows are those of data.eval and data.split.',
      )
      .argument('<recipe|run>', 'YAML file, or a run folder')
      .option('--set <a.b=c>', 'edit a field of the recipe; may be given several times', collect, [])
      .option('--adapter <dir>', 'PEFT adapter to measure instead')
      .option('--no-match', 'only the losses, nothing is generated')
      .option('--max-tokens <n>', 'most tokens of a generated answer, analysis included', integerIn(1, 1 << 20), 512)
      .option('--limit <n>', 'generate for the first n rows only', integerIn(1, 1e9))
      .option('--threads <n>', 'CPU threads of generation', integerIn(1, 1024))
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper eval runs/nano-lora',
          'temper eval recipes/nano-lora.yaml --json',
          'temper eval runs/nano-lora --set data.eval.0.path=other.jsonl --no-match',
        ),
      )
      .action(async (path: string, options: Options) => {
        const [{ evaluate }, { noticesOf }] = await Promise.all([
          import('../../evaluate/evaluate.js'),
          import('../../data/notes.js'),
        ]);
        const signal = interruptSignal();
        const quiet = options.json === true;
        const losses = createProgress({ label: 'loss', unit: 'batches', quiet });
        const result = await evaluate(path, {
          set: options.set,
          ...(options.adapter === undefined ? {} : { adapter: options.adapter }),
          signal,
          onProgress: (p) => losses.update(p.done, `${p.done} of ${p.total}`, p.total),
        });
        losses.finish();
        if (!quiet) sayDevice(result.device);
        const match = options.match ? await generateAndMatch(path, result, options, signal) : null;
        if (options.json) {
          printJson({ ...result, exactMatch: match });
          return;
        }
        const lines = [
          `loss ${result.loss.toFixed(4)} nats per weighted token over ${result.weightedTokens} weighted tokens ` +
            `(${result.tokens} in all)`,
        ];
        for (const [name, c] of Object.entries(result.channels))
          lines.push(`  ${name}: ${c.loss.toFixed(4)} over ${c.tokens} tokens`);
        for (const file of result.files)
          lines.push(...noticesOf(file).map((notice) => `  note: ${basename(file.path)}: ${notice}`));
        if (result.preference)
          lines.push(
            `pairs ${result.preference.pairs}: loss ${result.preference.loss.toFixed(4)}, ` +
              `${(100 * result.preference.accuracy).toFixed(1)} % preferred as chosen, ` +
              `margin ${result.preference.margin.toFixed(4)} nats (rewards: chosen ` +
              `${result.preference.rewardChosen.toFixed(4)}, rejected ${result.preference.rewardRejected.toFixed(4)})`,
          );
        if (match)
          lines.push(
            `exact match ${(100 * match.rate).toFixed(1)} % (${match.matches} of ${match.rows})` +
              (match.tooLong > 0 ? `; ${match.tooLong} rows longer than the recipe reads were not asked` : ''),
            ...match.misses
              .slice(0, 3)
              .map((m) => `  line ${m.line}: got ${JSON.stringify(m.got)}, wanted ${JSON.stringify(m.expected)}`),
          );
        print(...lines);
      });
  },
};

async function generateAndMatch(
  path: string,
  result: { readonly model: string; readonly adapter: string | null },
  options: Options,
  signal: AbortSignal,
): Promise<(import('../../evaluate/exact-match.js').ExactMatch & { readonly tooLong: number }) | null> {
  const { promptsOf } = await import('../../evaluate/evaluate.js');
  const { exactMatch } = await import('../../evaluate/exact-match.js');
  const { prompts: all, tooLong } = await promptsOf({ path, set: options.set }, { signal });
  const prompts = options.limit === undefined ? all : all.slice(0, options.limit);
  if (prompts.length === 0) return null;
  const { createGenerator } = await import('../../compose/generator.js');
  const generator = await createGenerator({
    model: result.model,
    adapter: result.adapter,
    maxTokens: options.maxTokens,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  const progress = createProgress({
    label: 'generate',
    total: prompts.length,
    unit: 'answers',
    quiet: options.json === true,
  });
  try {
    const match = await exactMatch(prompts, generator.final, {
      signal,
      concurrency: generator.slots,
      onProgress: (done, matches) => progress.update(done, `${matches} match`),
    });
    return { ...match, tooLong };
  } finally {
    progress.finish();
    await generator.close();
  }
}
