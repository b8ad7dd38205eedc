// `temper sign`: statements about a release, and an OpenSSF model signature over every file of it.

import { type Command, collect, examples, interruptSignal, printJson } from '../command.js';
import { createProgress } from '../progress.js';
import { print } from '../terminal.js';

interface Options {
  readonly key: string;
  readonly certificate: readonly string[];
  readonly out?: string;
  readonly sigstore?: boolean;
  readonly bare?: boolean;
  readonly run?: string;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'sign',
  summary: 'sign a release: statements about it, and every file of it in the OpenSSF model-signing format',
  register(program) {
    program
      .command('sign')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nThe statements (attestations/) say what its gate decided, where it comes from and what ` +
          'it is made of. What is signed in model.sig is\na list of all files with their digests; `temper audit`, ' +
          'and any other verifier of the format, finds what was changed, added\nor taken away. Keys of `temper key ' +
          'new` are Ed25519; the reference implementation of the format knows ECDSA alone: `temper key new --ecdsa`.',
      )
      .argument('<dir>', 'folder of an adapter or an export')
      .requiredOption('--key <file>', 'private key in PEM: Ed25519, or ECDSA on P-256, P-384 or P-521')
      .option(
        '--certificate <file>',
        "the signer's certificate in PEM, then those above it; may be given several times",
        collect,
        [],
      )
      .option('--out <file>', 'where the signature goes (default: model.sig in the folder)')
      .option('--run <dir>', 'run that trained it, where temper.json does not lead to it')
      .option('--bare', 'no statements: model.sig alone')
      .option('--sigstore', 'keyless signing by Fulcio and Rekor: not done here, and said so')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper sign out/nano-lora --key release-key.pem',
          'temper sign out/nano-lora --key release-key.pem --certificate release.crt --certificate ca.crt',
        ),
      )
      .action(async (dir: string, options: Options) => {
        const { sign } = await import('../../compose/attest.js');
        const progress = createProgress({ label: 'sign', unit: 'bytes', quiet: options.json === true });
        let bytes = 0;
        const result = await sign(
          {
            dir,
            key: options.key,
            certificates: options.certificate,
            sigstore: options.sigstore === true,
            bare: options.bare === true,
            run: options.run,
            ...(options.out === undefined ? {} : { out: options.out }),
          },
          {
            signal: interruptSignal(),
            onProgress: (more) => {
              bytes += more;
              progress.update(bytes);
            },
          },
        ).finally(progress.finish);
        if (options.json) printJson(result);
        else
          print(
            ...(result.statements.length > 0 ? [`attestations: ${result.statements.join(', ')}`] : []),
            `${result.file}: ${result.files} files, signed with ${result.algorithm}`,
            `key ${result.key}`,
            `check it with: temper audit ${dir} --key PUBLIC-KEY`,
          );
      });
  },
};
