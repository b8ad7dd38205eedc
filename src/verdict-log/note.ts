// A checkpoint: how large a log is and its root, signed. Its form is that of transparency logs (C2SP tlog-checkpoint
// in a signed-note), so that other tools can read, countersign and keep it.
import { sign, verify } from 'node:crypto';
import { keyHash, type Signer, type Verifier } from './keys.js';

export interface Checkpoint {
  /** Of the log, as `temper-log/0123456789abcdef`. */
  readonly origin: string;
  /** Which of its streams. */
  readonly lane: number;
  readonly size: number;
  /** Hex. */
  readonly root: string;
  /** When it was signed, by the clock of who signed, ISO 8601. */
  readonly time: string;
}
export const LANE = /^[0-9]{4}$/;
export const laneName = (lane: number): string => String(lane).padStart(4, '0');

const bodyOf = ({ origin, lane, size, root, time }: Checkpoint): string =>
  `${origin}/${laneName(lane)}\n${size}\n${Buffer.from(root, 'hex').toString('base64')}\ntime ${time}\n`;

export function signCheckpoint(checkpoint: Checkpoint, signer: Signer): string {
  const body = bodyOf(checkpoint);
  const signature = Buffer.concat([keyHash(checkpoint.origin, signer), sign(null, Buffer.from(body), signer.private)]);
  return `${body}\n— ${checkpoint.origin} ${signature.toString('base64')}\n`;
}

const FORM =
  /^([^\s+/]+\/[^\s+/]+)\/([0-9]{4})\n(0|[1-9][0-9]{0,14})\n([A-Za-z0-9+/]{43}=)\ntime ([0-9TZ:.-]{20,30})\n$/;

/** Knows which key signs what. */
export interface NoteReader {
  /** null: no checkpoint that the key signed which is due there. */
  open(note: string): Checkpoint | null;
}

/** What a note says, and who signed it; null: it is no checkpoint. */
export function parseNote(
  note: string,
): { readonly checkpoint: Checkpoint; isSignedBy(verifier: Verifier): boolean } | null {
  const end = note.indexOf('\n\n');
  if (end < 0) return null;
  const body = note.slice(0, end + 1);
  const [, origin = '', lane, size, root = '', time = ''] = FORM.exec(body) ?? [];
  if (lane === undefined) return null;
  const checkpoint = {
    origin,
    lane: Number(lane),
    size: Number(size),
    root: Buffer.from(root, 'base64').toString('hex'),
    time,
  };
  // What it says, written again, is what is signed: no second form of the same.
  if (bodyOf(checkpoint) !== body) return null;
  return {
    checkpoint,
    isSignedBy(verifier) {
      const name = keyHash(origin, verifier);
      return note
        .slice(end + 2)
        .split('\n')
        .some((line) => {
          const [, by, text = ''] = /^— (\S+) ([A-Za-z0-9+/]{91}=)$/.exec(line) ?? [];
          const signature = Buffer.from(text, 'base64');
          if (by !== origin || signature.toString('base64') !== text || !signature.subarray(0, 4).equals(name))
            return false;
          return verify(null, Buffer.from(body), verifier.key, signature.subarray(4));
        });
    },
  };
}
/** null: no checkpoint that this key signed. Signatures of others beside it are passed over. */
export function openCheckpoint(note: string, verifier: Verifier): Checkpoint | null {
  const parsed = parseNote(note);
  return parsed?.isSignedBy(verifier) ? parsed.checkpoint : null;
}

/** Notes that stand one after the other in a text. */
export const notesIn = (text: string): readonly string[] =>
  [...text.replaceAll('\r\n', '\n').matchAll(/[^\n]+\n(?:[^\n]+\n)+\n(?:— [^\n]+(?:\n|$))+/g)].map(([note]) =>
    note.endsWith('\n') ? note : `${note}\n`,
  );
