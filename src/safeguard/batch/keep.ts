// What a run that stops leaves: its own part becomes the part that the next run finds, or is added to it.
import { existsSync } from 'node:fs';
import { appendFile, rename, rm, stat, truncate } from 'node:fs/promises';
import type { KeptVerdicts } from './kept.js';
import { lineBatches } from './lines.js';

/**
 * Nothing is lost whenever this is interrupted or fails: `own` goes only when all of it stands in `part`.
 * @param own verdicts of this run, those that it took from before included
 * @throws what the file system says
 */
export async function keepParts(own: string, part: string, kept: KeptVerdicts): Promise<void> {
  // A new name takes no room on a disk that is full.
  if (!existsSync(part)) return rename(own, part);
  const before = (await stat(part)).size;
  try {
    await append(own, part, kept);
  } catch (error) {
    await truncate(part, before).catch(() => {});
    throw error;
  }
  await rm(own, { force: true });
}

async function append(own: string, part: string, kept: KeptVerdicts): Promise<void> {
  // What was there may end in the middle of a line.
  await appendFile(part, '\n');
  for await (const lines of lineBatches(own)) {
    const fresh = lines.flatMap(({ bytes }) => (bytes && !isKept(bytes, kept) ? [bytes, NEWLINE] : []));
    if (fresh.length > 0) await appendFile(part, Buffer.concat(fresh));
  }
}
const NEWLINE = Buffer.from('\n');

/** Whether a part before has it: parts do not grow by what is taken from them. */
function isKept(bytes: Buffer, kept: KeptVerdicts): boolean {
  try {
    const { policy, channel, digests } = JSON.parse(bytes.toString('utf8'));
    return kept.find(policy, channel, digests) !== undefined;
  } catch {
    return false;
  }
}
