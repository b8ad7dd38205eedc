// `temper serve`: base and adapters behind an OpenAI-compatible port.
import { Option } from 'commander';
import { type Command, examples, integerIn, interruptSignal, printJson } from '../command.js';
import {
  addModelOptions,
  addScreenOptions,
  type ModelOptions,
  type ScreenOptions,
  sayNotices,
} from '../engine-options.js';
import { sayDevice } from '../progress.js';
import { print, tell } from '../terminal.js';

type Options = Omit<ModelOptions, 'adapter'> &
  ScreenOptions & {
    readonly adapter: readonly string[];
    readonly name?: string;
    readonly host: string;
    readonly port: number;
    readonly apiKeyFile?: string;
    readonly slots: number;
    readonly queue: number;
    readonly maxTokens?: number;
    readonly state?: string;
    readonly reasoning: 'auto' | 'allowed' | 'never';
    readonly json?: boolean;
  };

/** NAME=DIR, each name once. */
async function adaptersOf(given: readonly string[]): Promise<Record<string, string>> {
  const { ConfigError } = await import('../../base/errors.js');
  const adapters: Record<string, string> = {};
  for (const text of given) {
    const at = text.indexOf('=');
    const name = text.slice(0, at),
      folder = text.slice(at + 1);
    if (at < 1 || folder === '' || Object.hasOwn(adapters, name))
      throw new ConfigError('bad_option', `--adapter ${text}: wanted NAME=DIR, each name once`);
    adapters[name] = folder;
  }
  return adapters;
}

export const command: Command = {
  name: 'serve',
  summary: 'serve a model and its adapters behind an OpenAI-compatible API; with --policy nothing leaves unjudged',
  register(program) {
    addScreenOptions(
      addModelOptions(
        program
          .command('serve')
          .summary(this.summary)
          .description(
            `${this.summary}.\nPOST /v1/chat/completions, /v1/responses, /v1/messages, /v1/completions, GET /v1/models, ` +
              '/openapi.json, /health, /ready, /metrics. SIGTERM and Ctrl-C end what runs and then the server; a second one ends it at once.',
          ),
        'NAME=DIR of a PEFT adapter, served under that name; may be given several times',
      ),
    )
      .option('--name <name>', "name of the base in requests (default: its folder's)")
      .option('--host <address>', 'address to listen on; one that is not loopback needs --api-key-file', '127.0.0.1')
      .option('--port <n>', 'port to listen on; 0: any that is free', integerIn(0, 65535), 8080)
      .option('--api-key-file <file>', 'who may ask: lines NAME KEY, or NAME sha256:HEX')
      .option('--slots <n>', 'requests that run at once', integerIn(1, 256), 16)
      .option(
        '--queue <n>',
        'requests that may wait for a slot; more are told to come again',
        integerIn(0, 100_000),
        64,
      )
      .option('--max-tokens <n>', 'most tokens of an answer where a request does not say', integerIn(1, 1 << 20))
      .option('--state <dir>', 'folder that keeps the answers of /v1/responses (default: in memory)')
      .addOption(
        new Option(
          '--reasoning <when>',
          "when the model's thoughts leave: auto: where there is no policy; allowed: with policies too, once they are " +
            'allowed; never',
        )
          .choices(['auto', 'allowed', 'never'])
          .default('auto'),
      )
      .option('--json', 'one line on stdout when it is ready: url, models, device')
      .addHelpText(
        'after',
        examples(
          'temper serve --model models/nano',
          'temper serve --model models/nano --adapter tickets=runs/nano-lora/adapter --port 9000',
          'temper serve --model models/nano --policy policies/contact/policy.md --judge models/nano-judge',
        ),
      )
      .action(async (options: Options) => {
        const [{ serve }, { parseBytes }] = await Promise.all([
          import('../../serve/server.js'),
          import('../../base/units.js'),
        ]);
        const signal = interruptSignal('no new requests; ending those under way');
        const { model, threads, device, precision, denseDtype, denseCache, kvDtype, context, slots } = options;
        const { memoryLimit } = options;
        const server = await serve(
          {
            engine: {
              model,
              slots,
              adapters: await adaptersOf(options.adapter),
              ...(threads === undefined ? {} : { threads }),
              ...(device === undefined ? {} : { device }),
              ...(memoryLimit === undefined ? {} : { memoryLimit: parseBytes(memoryLimit) }),
              ...(precision === undefined ? {} : { precision }),
              ...(denseDtype === undefined ? {} : { denseDtype }),
              ...(denseCache === undefined ? {} : { denseCache }),
              ...(kvDtype === undefined ? {} : { kvDtype }),
              ...(context === undefined ? {} : { contextTokens: context }),
            },
            name: options.name,
            screening: options.policy.length > 0 || options.judge !== undefined ? options : undefined,
            host: options.host,
            port: options.port,
            apiKeyFile: options.apiKeyFile,
            queue: options.queue,
            maxTokens: options.maxTokens,
            reasoning: options.reasoning,
            state: options.state,
            log: (line) => tell(`temper: ${line}`),
          },
          signal,
        );
        sayDevice(server.info.device);
        sayNotices(server.notices);
        const names = server.models.map((m) => m.id);
        if (options.json) printJson({ url: server.url, models: server.models, device: server.info.device });
        else print(`${server.url}/v1 serves ${names.join(', ')}`);
        if (!signal.aborted)
          await new Promise<void>((done) => signal.addEventListener('abort', () => done(), { once: true }));
        await server.close();
      });
  },
};
