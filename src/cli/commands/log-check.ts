// `temper log check`: whether a proof holds, without the log.
import { type Command, examples, group, printJson } from '../command.js';
import { print } from '../terminal.js';
import { LOG_GROUP } from './log-verify.js';

interface Options {
  readonly key: string;
  readonly text?: string;
  readonly receipt?: string;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'log check',
  summary: 'check a proof by itself, with the public key alone',
  register(program) {
    group(program, ...LOG_GROUP)
      .command('check')
      .summary(this.summary)
      .description(this.summary)
      .argument('<proof>', 'what `temper log prove` wrote')
      .requiredOption('--key <file>', 'public key of the log: PEM, or the line that the log says')
      .option('--receipt <id>', 'the proof must be of this receipt')
      .option(
        '--text <file>',
        'the record must be about this text, to the byte; the proof must have been made by --open',
      )
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples('temper log check proof.json --key log-key.pem.pub')}\nExit codes: 0 it holds, 40 it does not.\n`,
      )
      .action(async (file: string, options: Options) => {
        const [{ checkProof }, { readVerifier }, { readInputText }, { parseJson }, errors] = await Promise.all([
          import('../../verdict-log/prove.js'),
          import('../../verdict-log/keys.js'),
          import('../../base/inputs.js'),
          import('../../base/json.js'),
          import('../../base/errors.js'),
        ]);
        const { asReadError } = await import('../../base/system-error.js');
        const { sha256File } = await import('../../base/digest.js');
        const key = readVerifier(options.key);
        let text: string;
        try {
          text = readInputText(file, 'record');
        } catch (e) {
          throw asReadError(e, file, 'give what `temper log prove` wrote', (m) => new errors.DataError('log_proof', m));
        }
        const digest = options.text === undefined ? undefined : await sha256File(options.text);
        const lines = text.split('\n').filter((line) => line.trim() !== '');
        if (lines.length === 0) throw new errors.DataError('log_proof', `${file}: holds no proof`);
        const checked = lines.map((line) => {
          let proof: unknown;
          try {
            proof = parseJson(line);
          } catch (cause) {
            throw new errors.DataError('log_proof', `${file}: is not JSON, so no proof`, { file }, { cause });
          }
          return checkProof(proof, key, digest);
        });
        const fails = (why: string) =>
          new errors.IntegrityError('log_altered', `${file}: the proof does not hold: ${why}`);
        const other = checked.find((c) => options.receipt !== undefined && c.receipt !== options.receipt.trim());
        if (other) throw fails('it is of another receipt');
        if (digest !== undefined && !checked.every((c) => (c.matches ?? []).length > 0))
          throw fails(`its record is not about ${options.text}`);
        if (options.json) {
          for (const c of checked) printJson(c);
          return;
        }
        print(
          ...checked.map((c) =>
            c.kind === 'record'
              ? `record ${c.receipt} is in ${c.origin}, stream ${c.lane}, of ${c.size} records, signed ${c.time}` +
                (c.matches === undefined ? '' : `; it is about the text, on ${c.matches.join(', ')}`)
              : `${c.origin}, stream ${c.lane}: its ${c.size} records, signed ${c.time}, go on from what it was`,
          ),
        );
      });
  },
};
