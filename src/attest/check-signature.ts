// The signatures over a folder: whose they are, and whether the folder is what they are of.
import { readInput } from '../base/inputs.js';
import { checkSignature, readBundle, type SignatureOptions } from './bundle.js';
import { type Finding, Findings, some } from './findings.js';
import type { Folder } from './folder.js';
import { compareFolder, type ModelManifest, readManifest } from './model-signature.js';

/** Files by which a model is what it is; a card or a record beside them is not part of it. */
export const IS_MODEL =
  /(?:\.safetensors|\.gguf|^(?:adapter_config|config|tokenizer|model\.safetensors\.index)\.json)$/;
export const modelFiles = (folder: Folder): readonly string[] =>
  folder.entries.flatMap((e) => (!e.name.includes('/') && IS_MODEL.test(e.name) ? [e.name] : []));

const STATUS = { ok: 'ok', failed: 'failed', untrusted: 'unchecked' } as const;
const PROBLEM = {
  changed: 'changed since it was signed',
  missing: 'was signed and is not there',
  added: 'is there and was not signed',
  link: 'is a link, where a file was signed',
  'not a file': 'is no plain file',
} as const;

async function compare(findings: Findings, folder: Folder, manifest: ModelManifest): Promise<void> {
  const { problems, uncovered } = await compareFolder(folder, manifest);
  for (const { name, what } of problems.slice(0, 50)) findings.add('failed', 'files', name, PROBLEM[what]);
  if (problems.length > 50)
    findings.add('failed', 'files', 'further files', `${problems.length - 50} more are not as they were signed`);
  const listed = new Set(manifest.files.map((f) => f.name));
  const left = modelFiles(folder).filter((name) => !listed.has(name));
  for (const name of left)
    if (!problems.some((p) => p.name === name))
      findings.add('failed', 'coverage', name, 'is of the model, and the signature leaves it out');
  const rest = uncovered.filter((name) => !left.includes(name));
  if (rest.length > 0) findings.add('unchecked', 'coverage', some(rest), 'the signer left it out by name');
  if (problems.length === 0)
    findings.add('ok', 'files', `${listed.size} files`, `as they were signed, digest ${manifest.root}`);
}

/** @returns findings, and whether a signature that holds, by somebody who is trusted, is over the folder */
export async function checkSignatures(
  folder: Folder,
  options: SignatureOptions,
): Promise<{ readonly list: readonly Finding[]; readonly signed: boolean }> {
  const findings = new Findings('signature');
  const files = folder.entries.filter((e) => !e.name.includes('/') && e.name.endsWith('.sig'));
  if (files.length === 0) findings.add('missing', 'by', 'model.sig', 'nobody signed this folder; `temper sign` does');
  let signed = false;
  for (const { name, kind } of files) {
    if (kind !== 'file') {
      findings.add('failed', 'form', name, 'is a link or no plain file');
      continue;
    }
    const bundle = await findings.attempt('form', name, () => readBundle(readInput(folder.path(name), 'record'), name));
    if (!bundle) continue;
    const { status, signer, why, notes } = checkSignature(bundle, options);
    findings.add(STATUS[status], 'by', `${name}, by ${signer}`, why ?? ['the signature holds', ...notes].join('; '));
    signed ||= status === 'ok';
    // What is listed is held against the folder also where nobody says whose key that is.
    const manifest = await findings.attempt('form', name, () => readManifest(bundle.envelope.payload, name));
    if (manifest) await findings.attempt('files', name, () => compare(findings, folder, manifest));
  }
  return { list: findings.list, signed: signed && findings.list.every((f) => f.status !== 'failed') };
}
