// What SARIF 2.1.0 logs share (docs.oasis-open.org/sarif): their head, and how files are named in them.
import { isAbsolute } from 'node:path';

export const SARIF_HEAD =
  '{"$schema":"https://json.schemastore.org/sarif-2.1.0.json","version":"2.1.0","runs":[{"results":[';
/** A path as a reference of RFC 3986. */
export const sarifUri = (path: string): string => {
  const parts = path.replaceAll('\\', '/').split('/').map(encodeURIComponent).join('/');
  return isAbsolute(path) ? `file://${parts}` : parts;
};
