// `temper pull`: a model or a dataset from Hugging Face, whole and checked.
import { formatBytes, formatSeconds } from '../../base/units.js';
import type { PullProgress } from '../../hub/pull.js';
import { type Command, collect, examples, integerIn, interruptSignal, numberIn, printJson } from '../command.js';
import { createProgress, type Progress } from '../progress.js';
import { print, tell } from '../terminal.js';

interface Options {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
  readonly endpoint?: string;
  readonly replace?: boolean;
  readonly connections: number;
  readonly retries: number;
  readonly timeout: number;
  readonly json?: boolean;
}

/** A line for each phase of a pull: what is there is read, the rest comes. */
export function pullProgress(quiet: boolean, label = 'pull'): { update(p: PullProgress): void; finish(): void } {
  let line: Progress | undefined;
  let phase: PullProgress['phase'] | undefined;
  return {
    update(p) {
      if (p.phase !== phase) {
        line?.finish();
        line = createProgress({
          label: p.phase === 'check' ? 'check' : label,
          total: p.total / 1e6,
          unit: 'MB',
          quiet,
        });
        phase = p.phase;
      }
      line?.update(p.done / 1e6, `${formatBytes(p.done)} of ${formatBytes(p.total)}`);
    },
    finish: () => line?.finish(),
  };
}
/** Notices of a pull on stderr. */
export const sayPullNotice = (notice: string): void => tell(`temper: ${notice}`);

export const command: Command = {
  name: 'pull',
  summary: 'download a model or a dataset from Hugging Face, resumed where it stopped, checked by digest',
  register(program) {
    program
      .command('pull')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nEvery file is of one commit and has the digest that the hub lists, or it is not there. ` +
          'A pull that ends early goes on\nwhen it is run again. HF_TOKEN (or the file of `hf auth ' +
          'login`), HF_ENDPOINT, ' +
          'HF_HOME, HF_HUB_OFFLINE and the proxies of\nHTTPS_PROXY, HTTP_PROXY and NO_PROXY are honoured.',
      )
      .argument('<repo>', 'OWNER/NAME[@REVISION], or datasets/OWNER/NAME[@REVISION]')
      .argument('<dir>', 'folder for its files')
      .option('--include <glob>', 'only these files; may be given several times', collect, [])
      .option(
        '--exclude <glob>',
        'not these files; may be given several times (without --include, original/ and metal/ are left out too)',
        collect,
        [],
      )
      .option('--endpoint <url>', 'hub to ask (default: HF_ENDPOINT, else https://huggingface.co)')
      .option('--replace', 'replace files of other bytes that no pull put there')
      .option('--connections <n>', 'requests at once', integerIn(1, 64), 8)
      .option('--retries <n>', 'tries of a request that brings nothing, beyond the first', integerIn(0, 100), 5)
      .option('--timeout <seconds>', 'how long a connection may be silent', numberIn(0.1, 3600), 30)
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper pull openai/gpt-oss-20b /data/gpt-oss-20b',
          "temper pull openai/gpt-oss-20b@main models/config --include '*.json'",
          'temper pull datasets/openai/gsm8k data/gsm8k --json',
        ) +
          '\nExit codes: 0 complete, 2 to be mended here (name, token, room, what is in the way), 30 the other side, ' +
          '40 a digest that does not match.\n',
      )
      .action(async (repo: string, dir: string, options: Options) => {
        const { pull } = await import('../../hub/pull.js');
        const progress = pullProgress(options.json === true);
        const result = await pull(
          {
            repo,
            dir,
            include: options.include,
            exclude: options.exclude,
            replace: options.replace === true,
            connections: options.connections,
            retries: options.retries,
            stallSeconds: options.timeout,
            ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
          },
          {
            signal: interruptSignal('stopping; what came is kept, run it again to go on'),
            onProgress: progress.update,
            onNotice: sayPullNotice,
          },
        ).finally(progress.finish);
        if (options.json) {
          printJson(result);
          return;
        }
        const { files, bytes, fetchedBytes, seconds, commit } = result;
        const fetched = files.filter((f) => f.fetched).length;
        print(
          `${dir}: complete, ${files.length} file${files.length === 1 ? '' : 's'}, ` +
            `${formatBytes(bytes)}, commit ${commit}`,
          fetched === 0
            ? 'all of it was there'
            : `${fetched} fetched, ${formatBytes(fetchedBytes)} in ${formatSeconds(seconds)}`,
        );
      });
  },
};
