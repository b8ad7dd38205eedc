// `temper push`: an export on Hugging Face.
import { formatBytes } from '../../base/units.js';
import { type Command, examples, integerIn, interruptSignal, numberIn, printJson } from '../command.js';
import { print } from '../terminal.js';
import { pullProgress, sayPullNotice } from './pull.js';

interface Options {
  readonly public?: boolean;
  readonly revision?: string;
  readonly pr?: boolean;
  readonly message?: string;
  readonly endpoint?: string;
  readonly retries: number;
  readonly timeout: number;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'push',
  summary: 'put an export on Hugging Face as one commit, of the very bytes that were verified',
  register(program) {
    program
      .command('push')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nEvery file is hashed again and held against temper.json, also while it is uploaded; ` +
          'afterwards what the hub lists is\nheld against it too. An adapter is pushed that passed the release ' +
          'gate, whose evidence in gate/ is decided anew, or\nwhose recipe wants none, or for which somebody signed. ' +
          'A repo that is not there is made, private. The ' +
          'token is read from HF_TOKEN, or from the file of\n`hf auth login`, and must be one that may write.',
      )
      .argument('<dir>', 'folder made by temper export')
      .argument('<repo>', 'OWNER/NAME')
      .option('--public', 'everybody may see it: a new repo is made public at the end')
      .option('--revision <branch>', 'branch to push to (default main); made where it is not there')
      .option('--pr', 'open a pull request in place of a commit to the branch')
      .option('--message <text>', 'first line of the commit')
      .option('--endpoint <url>', 'hub to push to (default: HF_ENDPOINT, else https://huggingface.co)')
      .option('--retries <n>', 'tries of a request beyond the first', integerIn(0, 100), 5)
      .option('--timeout <seconds>', 'how long a connection may be silent', numberIn(0.1, 3600), 30)
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper push out/nano-lora me/nano-lora',
          "temper push out/tickets acme/tickets --public --message 'Tickets, second round'",
          'temper push out/tickets acme/tickets --pr --json',
        ) +
          '\nExit codes: 0 pushed, 2 to be mended here, 10 the gate did not pass it, 30 the other side, 40 not the ' +
          'bytes that were verified.\n',
      )
      .action(async (dir: string, repo: string, options: Options) => {
        const { pushReleased } = await import('../../compose/release.js');
        const progress = pullProgress(options.json === true);
        const result = await pushReleased(
          {
            dir,
            repo,
            public: options.public === true,
            pullRequest: options.pr === true,
            retries: options.retries,
            stallSeconds: options.timeout,
            ...(options.revision === undefined ? {} : { revision: options.revision }),
            ...(options.message === undefined ? {} : { message: options.message }),
            ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
          },
          { signal: interruptSignal(), onProgress: progress.update, onNotice: sayPullNotice },
        ).finally(progress.finish);
        if (options.json) {
          printJson(result);
          return;
        }
        const bytes = result.files.reduce((n, f) => n + f.size, 0);
        print(
          `${result.url}  (${result.private ? 'private' : 'public'}${result.created ? ', new' : ''})`,
          `${result.files.length} files, ${formatBytes(bytes)}, commit ${result.commit} on ${result.revision}`,
          ...(result.pullRequest ? [result.pullRequest] : []),
          ...(result.gate.status === 'overridden'
            ? [`WARNING: released against the gate by key ${result.gate.override?.signer.slice(0, 12)}`]
            : []),
        );
      });
  },
};
