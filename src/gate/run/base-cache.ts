// What the base was answered and how that was scored, kept from run to run: an adapter's gate need not ask its base
// again. A line is found by the digest of all that it depends on; one that was cut or changed is none.
import { appendFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { sha256 } from '../../base/digest.js';
import { makeFolders } from '../../base/folders.js';
import { inputPieces } from '../../base/inputs.js';
import { parseJson } from '../../base/json.js';
import type { Scored } from '../scorers/scorer.js';

export interface BaseCache {
  get(key: string): Scored | undefined;
  put(key: string, scored: Scored): void;
}
interface Line {
  readonly key: string;
  readonly scored: Scored;
  /** sha256 over key and scored, hex. */
  readonly check: string;
}
/** Larger files are begun anew. */
const MOST_BYTES = 1 << 28;
const checkOf = (key: string, scored: Scored): string => sha256(JSON.stringify([key, scored]));

/** @param name of the file: the digest of the base, so that each has one */
export async function openBaseCache(folder: string, name: string): Promise<BaseCache> {
  const file = join(folder, `${name}.jsonl`);
  const known = new Map<string, Scored>();
  let bytes = 0;
  if (existsSync(file)) {
    const pieces: Buffer[] = [];
    for await (const piece of inputPieces(file)) {
      bytes += piece.length;
      if (bytes > MOST_BYTES) break;
      pieces.push(piece);
    }
    for (const text of Buffer.concat(pieces).toString('utf8').split('\n')) {
      const line = readLine(text);
      if (line) known.set(line.key, line.scored);
    }
  }
  makeFolders(folder);
  return {
    get: (key) => known.get(key),
    put(key, scored) {
      if (known.has(key) || bytes > MOST_BYTES) return;
      known.set(key, scored);
      const line: Line = { key, scored, check: checkOf(key, scored) };
      // A line begins with a break: what a killed writer left of its last one ends there.
      const text = `\n${JSON.stringify(line)}\n`;
      bytes += text.length;
      try {
        appendFileSync(file, text);
      } catch {
        // a disk that is full costs time, not the run
      }
    },
  };
}

function readLine(text: string): Line | null {
  if (text === '') return null;
  try {
    const line = parseJson(text) as Line;
    return line.check === checkOf(line.key, line.scored) ? line : null;
  } catch {
    return null;
  }
}
