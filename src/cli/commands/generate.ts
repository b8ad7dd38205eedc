// `temper generate`: one answer to one prompt, streamed, or held back until every policy allows it.
import { type Command, examples, integerIn, interruptSignal, printJson } from '../command.js';
import {
  addHoldOptions,
  addModelOptions,
  addSamplingOptions,
  addScreenOptions,
  type ModelOptions,
  onRecord,
  openModel,
  requestOf,
  type SamplingOptions,
  type ScreenOptions,
  sayNotices,
} from '../engine-options.js';
import { createProgress } from '../progress.js';
import { tell } from '../terminal.js';

type Options = ModelOptions &
  SamplingOptions &
  ScreenOptions & {
    readonly json?: boolean;
    readonly prompts?: string;
    readonly out?: string;
    readonly slots: number;
  };

/** `--prompts`: a file of prompts to a file of answers. */
async function fromFile(input: string, options: Options): Promise<void> {
  const [{ generateFile }, { conversation }, { openScreen }, { toConversation }, { ConfigError }] = await Promise.all([
    import('../../compose/generate-file.js'),
    import('../../compose/turn.js'),
    import('../../compose/screening.js'),
    import('../../harmony/chat.js'),
    import('../../base/errors.js'),
  ]);
  const output = options.out;
  if (output === undefined)
    throw new ConfigError('bad_option', 'generate: --prompts needs --out FILE (/dev/stdout is one)');
  if (options.shadow === true)
    throw new ConfigError(
      'bad_option',
      'generate: --shadow is for answers that are shown; screen the answers of --prompts with `temper screen`',
    );
  const signal = interruptSignal();
  const screen = await openScreen(options, signal, { by: 'generate' });
  try {
    sayNotices(screen?.notices ?? []);
    const engine = await openModel(options, signal, options.slots);
    try {
      const { precision, denseDtype, kvDtype, context, system, effort, seed = 0 } = options;
      const { temperature, topK, topP, minP, maxTokens } = options;
      const progress = createProgress({ label: 'generate', unit: 'answers', quiet: options.json === true });
      const summary = await generateFile({
        input,
        output,
        engine,
        screen: screen?.screen ?? null,
        ...(screen?.log ? { sink: screen.log } : {}),
        slots: options.slots,
        settings: [
          { precision, denseDtype, kvDtype, context, system, effort, seed },
          { temperature, topK, topP, minP, maxTokens },
        ],
        request: (body, index) =>
          requestOf(
            'prompt' in body
              ? conversation(options, [{ role: 'user', content: body.prompt }])
              : toConversation({ reasoning_effort: effort, ...body }).messages,
            { ...options, seed: seed + index },
          ),
        signal,
        onRow: (done, rows) => progress.update(done, `${done} of ${rows}`, rows),
      });
      progress.finish();
      process.exitCode = summary.exitCode;
      if (options.json) printJson({ ...summary, out: output });
      else
        tell(
          `${summary.rows} rows, ${summary.kept} answered before, ${summary.errors} errors` +
            (summary.none > 0 ? `, ${summary.none} without a final message` : '') +
            (summary.blocked + summary.unjudged > 0
              ? `, ${summary.blocked} blocked, ${summary.unjudged} unjudged`
              : '') +
            `; answers in ${output}`,
        );
    } finally {
      await engine.close();
    }
  } finally {
    await screen?.close();
  }
}

export const command: Command = {
  name: 'generate',
  summary:
    'answer a prompt, or a file of them; with --policy nothing is shown that is not allowed, analysis and final apart',
  register(program) {
    addHoldOptions(
      addScreenOptions(
        addSamplingOptions(
          addModelOptions(
            program
              .command('generate')
              .summary(this.summary)
              .description(`${this.summary}.\nThe final answer goes to stdout, the analysis to stderr.`),
          ),
        ),
      ),
    )
      .argument('[prompt]', 'the user message; - reads it from stdin')
      .option(
        '--prompts <file>',
        'JSON lines {"id"?, "prompt"} or {"id"?, "messages"}, - for stdin; answers go to --out',
      )
      .option(
        '--out <file>',
        'with --prompts: one JSON line an answer; a run that stopped goes on with the same command',
      )
      .option('--slots <n>', 'with --prompts: answers at once', integerIn(1, 256), 8)
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper generate --model models/nano "Please book a table for 4 people on friday at 19:30 for Rossi"',
          'temper generate --model models/nano --adapter runs/desk/adapter --temperature 0 --json "…"',
          'temper generate --model models/nano --prompts prompts.jsonl --out answers.jsonl',
          'temper generate --model models/nano --policy policies/contact/policy.md --judge models/nano-judge "…"',
        ) +
          '\nExit codes: 0 there is an answer, 20 there is none (no final message, or cut off before it); with ' +
          '--policy:\n10 something was blocked, 30 something could not be judged.\n',
      )
      .action(async (argument: string | undefined, options: Options) => {
        const [
          { createShow, runTurn, sayTurn, showTurn, turnExitCode, turnJson },
          { conversation },
          { openScreen },
          { readStream },
          { ConfigError },
        ] = await Promise.all([
          import('../turn.js'),
          import('../../compose/turn.js'),
          import('../../compose/screening.js'),
          import('../../base/inputs.js'),
          import('../../base/errors.js'),
        ]);
        if ((argument === undefined) === (options.prompts === undefined))
          throw new ConfigError('prompt_empty', 'generate: give a prompt, or --prompts FILE, one of the two');
        if (argument === undefined) return fromFile(options.prompts ?? '', options);
        const prompt = argument === '-' ? (await readStream(process.stdin, 'stdin')).replace(/\n$/, '') : argument;
        if (prompt.trim() === '')
          throw new ConfigError('prompt_empty', 'generate: the prompt is empty; wanted text, or - with text on stdin');
        const signal = interruptSignal();
        const screen = await openScreen(options, signal, { by: 'generate' });
        try {
          sayNotices(screen?.notices ?? []);
          const engine = await openModel(options, signal);
          try {
            const output = createShow();
            const request = requestOf(conversation(options, [{ role: 'user', content: prompt }]), options);
            const { model, adapter = null } = options;
            // What is printed as one result is judged once.
            const turn =
              options.json && screen?.mode === 'enforce'
                ? await runTurn(
                    engine,
                    request,
                    screen.screen,
                    () => {},
                    signal,
                    ...onRecord(screen, { model, adapter }),
                  )
                : await showTurn(engine, request, screen, options.json ? () => {} : output.show, signal);
            output.end();
            process.exitCode = turnExitCode(turn);
            if (options.json) printJson(turnJson(turn));
            sayTurn(turn);
          } finally {
            await engine.close();
          }
        } finally {
          await screen?.close();
        }
      });
  },
};
