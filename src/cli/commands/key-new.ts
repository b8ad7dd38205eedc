// `temper key new`: a pair of keys that signs logs and releases.
import { type Command, examples, group, printJson } from '../command.js';
import { print } from '../terminal.js';

export const command: Command = {
  name: 'key new',
  summary: 'make an Ed25519 key that signs logs and releases: FILE for its owner alone, FILE.pub for everybody',
  register(program) {
    group(program, 'key', 'keys that sign logs of verdicts and releases')
      .command('new')
      .summary(this.summary)
      .description(`${this.summary}.\nA file that is there is never written over.`)
      .argument('<file>', 'where the private key goes, as PEM with mode 0600')
      .option('--ecdsa', 'a key of ECDSA P-256, for releases that other verifiers of model signatures are to check')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText('after', examples('temper key new log-key.pem', 'temper key new release-key.pem --ecdsa'))
      .action(async (file: string, options: { readonly ecdsa?: boolean; readonly json?: boolean }) => {
        const { makeKey, publicFile } = await import('../../verdict-log/keys.js');
        const { makeEcdsaKey } = await import('../../attest/keys.js');
        const key = options.ecdsa ? makeEcdsaKey(file).hint : makeKey(file).raw.toString('base64');
        const result = { private: file, public: publicFile(file), key };
        if (options.json) printJson(result);
        else
          print(
            `private key in ${result.private}: keep it where nobody else can read it`,
            `public key in ${result.public}`,
          );
      });
  },
};
