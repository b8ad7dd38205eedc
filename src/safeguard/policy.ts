// A policy is a text file. Its rules are the lines that begin with an id: `R1: …`, `- R1. …`, `**R1** …`, `## R1 …`.
import { readFile } from 'node:fs/promises';
import { basename, dirname, extname } from 'node:path';
import { sha256 } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import type { Policy } from './types.js';

/** `C1`, `SP-2`, `PII-EU-3`: an id, at a line's start, bare, as a list item or in bold. */
const RULE_ID = '([A-Z]{1,8}(?:-[A-Z]{1,8})*-?[0-9]{1,3})';
const RULE_LINE = new RegExp(
  String.raw`^[ \t]*(?:[-*#]+[ \t]+)?(?:\*\*)?${RULE_ID}(?:\*\*)?(?:[:.)]|[ \t]+[–—-]|\*\*|[ \t]|$)`,
  'gm',
);
const MAX_POLICY_BYTES = 64 * 1024;

/** @param name how verdicts call it */
export function definePolicy(name: string, text: string): Policy {
  if (text.trim() === '')
    throw new ConfigError(
      'policy_empty',
      `policy ${name}: the text is empty, wanted instructions and rules; an empty policy would allow everything`,
    );
  const rules = [...new Set([...text.matchAll(RULE_LINE)].map((m) => m[1] ?? ''))];
  return { name, text, rules, digest: sha256(text) };
}

/**
 * `policies/NAME/policy.md` is called NAME, any other file by its own name. @throws {ConfigError} missing, empty or
 * larger than 64 KiB
 */
export async function loadPolicy(path: string): Promise<Policy> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw new ConfigError(
      'policy_unreadable',
      `policy ${path}: cannot be read (${(cause as NodeJS.ErrnoException).code ?? 'error'}); check the path`,
      { file: path },
      { cause },
    );
  }
  if (bytes.length > MAX_POLICY_BYTES) {
    throw new ConfigError(
      'policy_too_long',
      `policy ${path}: ${bytes.length} bytes, wanted at most ${MAX_POLICY_BYTES}; judges follow short policies best`,
      { file: path },
    );
  }
  const stem = basename(path, extname(path));
  return definePolicy(stem === 'policy' ? basename(dirname(path)) : stem, bytes.toString('utf8'));
}
