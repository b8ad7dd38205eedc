// The contracts by name.
import { sha256 } from '../../base/digest.js';
import type { Contract, ContractName, ContractRequest, JudgeMessage } from './contract.js';
import { gptOssSafeguard } from './gpt-oss-safeguard.js';
import { label } from './label.js';
import { llamaGuard } from './llama-guard.js';
import { qwen3guard } from './qwen3guard.js';
import { temper } from './temper.js';

export const CONTRACTS: Readonly<Record<ContractName, Contract>> = {
  temper,
  'gpt-oss-safeguard': gptOssSafeguard,
  label,
  'llama-guard': llamaGuard,
  qwen3guard,
};
export const contractOf = (name: ContractName | undefined): Contract => CONTRACTS[name ?? 'temper'];

/** The messages that a judge gets: as its request's contract has them. */
export const judgeMessages = (
  request: ContractRequest & { readonly contract?: ContractName },
): readonly JudgeMessage[] => contractOf(request.contract).messages(request);

/** Who judged, and by which contract: a judge's digest under ours is its own. */
export function judgeDigest(digest: string, name: ContractName | undefined): string {
  const contract = contractOf(name);
  return contract.name === 'temper' ? digest : sha256(JSON.stringify([digest, contract.name, contract.version]));
}
