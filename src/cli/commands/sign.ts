// `temper sign`: an OpenSSF model signature over every file of a folder.

import { type Command, collect, examples, interruptSignal, printJson } from '../command.js';
import { createProgress } from '../progress.js';
import { print } from '../terminal.js';

interface Options {
  readonly key: string;
  readonly certificate: readonly string[];
  readonly out?: string;
  readonly sigstore?: boolean;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'sign',
  summary: 'sign every file of a folder, in the OpenSSF model-signing format (model.sig)',
  register(program) {
    program
      .command('sign')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nWhat is signed is a list of all files with their digests; \`temper verify\`, and any other ` +
          'verifier of the format, finds what was changed, added\nor taken away. Keys of `temper key new` are Ed25519; ' +
          'the reference implementation of the format knows ECDSA alone: `temper key new --ecdsa`.',
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
            `${result.file}: ${result.files} files, signed with ${result.algorithm}`,
            `key ${result.key}`,
            `check it with: temper audit ${dir} --key PUBLIC-KEY`,
          );
      });
  },
};
