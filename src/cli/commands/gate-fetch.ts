// `temper gate fetch`: public sets of prompts, as files of a suite.
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import { print } from '../terminal.js';

interface Options {
  readonly out?: string;
  readonly from?: string;
  readonly anyDigest?: boolean;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'gate fetch',
  summary: 'bring a public set of prompts into a suite, with its licence and digest',
  register(program) {
    group(program, 'gate', this.summary)
      .command('fetch')
      .summary(this.summary)
      .description(
        `${this.summary}. Without a name: those that there are.\n\nWritten are NAME.jsonl (prompts), NAME.tests.yaml ` +
          '(what goes under tests: of a suite) and NAME.source.json. The bytes must be those that they were; ' +
          'nothing of a set is shipped with Temper.',
      )
      .argument('[set]', 'name of a set')
      .option('--out <dir>', 'folder of the suite')
      .option('--from <file>', 'a copy that is at hand, instead of the network')
      .option('--any-digest', 'take it although it is not what it was')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText('after', examples('temper gate fetch', 'temper gate fetch xstest --out gates/mine'))
      .action(async (set: string | undefined, options: Options) => {
        const [{ PUBLIC_SETS }, { ConfigError }] = await Promise.all([
          import('../../gate/fetch/sets.js'),
          import('../../base/errors.js'),
        ]);
        if (set === undefined) {
          const sets = PUBLIC_SETS.map(({ name, about, licence, url, pinned, copy = null }) => ({
            ...{ name, about, licence, url, copy, bytes: pinned?.bytes ?? null },
            digest: pinned === null ? null : `sha256:${pinned.sha256}`,
          }));
          if (options.json) printJson(sets);
          else
            print(
              ...sets.flatMap((s) => [
                `${s.name}: ${s.about}`,
                `  ${s.licence}; ${s.digest === null ? s.copy : `${s.bytes} bytes, ${s.digest}`}`,
                `  ${s.url}`,
              ]),
            );
          return;
        }
        if (options.out === undefined) throw new ConfigError('bad_option', 'gate fetch: --out DIR is missing');
        const { fetchPublicSet } = await import('../../compose/gate-fetch.js');
        const { out, from, anyDigest } = options;
        const fetched = await fetchPublicSet({
          ...{ set, out, signal: interruptSignal() },
          ...(from === undefined ? {} : { from }),
          ...(anyDigest === undefined ? {} : { anyDigest }),
        });
        if (options.json) printJson(fetched);
        else
          print(
            `${fetched.name}: ${fetched.prompts} prompts, licence ${fetched.licence}, ${fetched.digest}`,
            ...fetched.files.map((file) => `  ${file}`),
          );
      });
  },
};
