// `temper serve`: base and adapters behind an OpenAI-compatible port.

import { boundHeaps } from '../../base/heaps.js';
import { beginEngine } from '../../infer/thread.js';
import type { ServeOptions, TemperServer } from '../../serve/server.js';
import { type Command, collect, examples, integerIn, interruptSignal, numberIn, printJson } from '../command.js';
import { Option } from '../commander.js';
import { addHoldOptions, addModelOptions, addScreenOptions, sayNotices } from '../engine-options.js';
import { handleHangups } from '../interrupt.js';
import { sayDevice } from '../progress.js';
import type { CommandOptions } from '../serve-options.js';
import { tellService } from '../service.js';
import { print, tell } from '../terminal.js';

/** Reads the settings again, one time after the other; what is refused leaves all as it was. */
function reloading(server: TemperServer, read: () => Promise<ServeOptions>): () => void {
  let turn: Promise<void> = Promise.resolve();
  return () => {
    turn = turn.then(async () => {
      try {
        const told = await server.reload(await read());
        tell('temper: settings read again', ...told.map((line) => `temper: ${line}`));
      } catch (e) {
        tell(`temper: settings stay as they were: ${e instanceof Error ? e.message : String(e)}`);
      }
    });
  };
}

export const command: Command = {
  name: 'serve',
  summary: 'serve a model and its adapters behind an OpenAI-compatible API; with --policy nothing leaves unjudged',
  register(program) {
    addHoldOptions(
      addScreenOptions(
        addModelOptions(
          program
            .command('serve')
            .summary(this.summary)
            .description(
              `${this.summary}.\nPOST /v1/chat/completions, /v1/responses, /v1/messages, /v1/completions, ` +
                'GET /v1/models, /openapi.json, /health, /ready, /metrics. SIGTERM and Ctrl-C end what runs and then ' +
                'the server; a second one ends it at once.',
            ),
          'NAME=DIR of a PEFT adapter, served under that name; may be given several times',
        ),
      ),
    )
      .option('--config <file>', 'YAML file of all this, keys with limits, and TLS; read again on SIGHUP')
      .option('--name <name>', "name of the base in requests (default: its folder's)")
      .option('--host <address>', 'address to listen on; one that is not loopback needs keys', '127.0.0.1')
      .option('--port <n>', 'port to listen on; 0: any that is free', integerIn(0, 65535), 8080)
      .option('--tls-cert <file>', 'serve TLS with this certificate (PEM); with --tls-key; read again on SIGHUP')
      .option('--tls-key <file>', 'its private key (PEM)')
      .option('--api-key-file <file>', 'who may ask: lines NAME KEY, or NAME sha256:HEX; read again on SIGHUP')
      .option('--admin-key-file <file>', 'who may load and unload adapters at /admin: lines as of --api-key-file')
      .option('--slots <n>', 'requests that run at once', integerIn(1, 256), 16)
      .option(
        '--queue <n>',
        'requests that may wait for a slot; more are told to come again',
        integerIn(0, 100_000),
        64,
      )
      .option('--queue-seconds <s>', 'longest wait', numberIn(0.001, 86_400), 60)
      .option(
        '--drain-seconds <s>',
        'longest time that requests under way may take when it ends (default: all they need)',
        numberIn(0.001, 86_400),
      )
      .option('--max-tokens <n>', 'most tokens of an answer where a request does not say', integerIn(1, 1 << 20))
      .option('--state <dir>', 'folder that keeps the answers of /v1/responses (default: in memory)')
      .option(
        '--store <where>',
        'what outlives the server: a file of SQLite, or postgres://USER@HOST/DATABASE for several servers',
      )
      .option('--review-key-file <file>', 'who may review what was held, at /review: lines as of --api-key-file')
      .option('--review-two-persons', 'two people must approve each item')
      .option('--review-wait-seconds <s>', 'how long a held request waits for a decision', numberIn(0, 86_400), 0)
      .option('--max-body-bytes <n>', 'largest body of a request', integerIn(1, 2 ** 30), 2 << 20)
      .option('--cache-tokens <n>', 'tokens that the cache holds of all requests together', integerIn(64, 2 ** 40))
      .option('--prefixes <n>', 'beginnings of conversations that are kept computed', integerIn(0, 4096), 16)
      .option('--prefix-cache <dir>', 'folder where they outlive the server (default: in memory alone)')
      .option('--prefix-cache-bytes <bytes>', 'most bytes of that folder', '4GiB')
      .addOption(
        new Option(
          '--reasoning <when>',
          "when the model's thoughts leave: auto: where there is no policy; allowed: with policies too, once they " +
            'are allowed; never',
        )
          .choices(['auto', 'allowed', 'never'])
          .default('auto'),
      )
      .option('--require-gate', 'load only adapters with a PASS of the release gate for exactly what is at hand')
      .option(
        '--allow-override <file>',
        'with --require-gate: public key of one whose signed overrides are honoured; several times',
        collect,
      )
      .option('--revocations <file>', 'signed list of adapters that nobody may use any more; read again on SIGHUP')
      .option('--revocation-key <file>', 'public key of who signs it')
      .option('--no-playground', 'no page at / to talk to it')
      .option('--json', 'one line on stdout when it is ready: url, models, device')
      .addHelpText(
        'after',
        examples(
          'temper serve --model models/nano',
          'temper serve --model models/nano --adapter tickets=runs/nano-lora/adapter --port 9000',
          'temper serve --config serve.yaml',
          'temper serve --model models/nano --policy policies/contact/policy.md --judge models/nano-judge',
        ),
      )
      .action(async (options: CommandOptions, command: { getOptionValueSource(name: string): string | undefined }) => {
        beginEngine();
        const [{ serve }, { serveOptions }] = await Promise.all([
          import('../../serve/server.js'),
          import('../serve-options.js'),
        ]);
        const signal = interruptSignal('no new requests; ending those under way');
        const read = (): ReturnType<typeof serveOptions> =>
          serveOptions(
            options,
            (name) => command.getOptionValueSource(name) === 'cli',
            (line) => tell(`temper: ${line}`),
          );
        const settings = await read();
        const server = await serve(settings, signal);
        boundHeaps(); // a start is faster without
        const { apiKeyFile, adminKeyFile, reviewKeyFile, tls, revocations } = settings;
        if ([options.config, apiKeyFile, adminKeyFile, reviewKeyFile, tls, revocations].some((f) => f !== undefined))
          handleHangups(reloading(server, read));
        sayDevice(server.info.device);
        sayNotices(server.notices);
        const names = server.models.map((m) => m.id);
        if (options.json) printJson({ url: server.url, models: server.models, device: server.info.device });
        else print(`${server.url}/v1 serves ${names.join(', ')}`);
        await tellService('READY=1', `STATUS=serving ${names.length} models`);
        if (settings.playground !== false) tell(`temper: playground at ${server.url}/`);
        if (settings.reviewKeys ?? settings.reviewKeyFile) tell(`temper: reviews at ${server.url}/review`);
        void server.rehearse().catch(() => {}); // then the first requests are slower
        if (!signal.aborted)
          await new Promise<void>((done) => signal.addEventListener('abort', () => done(), { once: true }));
        void tellService('STOPPING=1');
        await server.close();
      });
  },
};
