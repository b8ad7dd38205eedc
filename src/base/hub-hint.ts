// A name of a hub where a path was wanted.
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';

/** The end of a sentence about what is not there: it may be OWNER/NAME of a hub. @param path where it was looked for */
export const hubHint = (given: string, path: string = given): string =>
  /^[A-Za-z0-9][\w-]*\/[A-Za-z0-9][\w.-]*$/.test(given) && !existsSync(dirname(path))
    ? `; if it is a name of Hugging Face, give hf://${given}`
    : '';
