// What /v1/models and the routes of probes answer.
import { z } from 'zod';
import { MessageErrorShape } from './wire-messages.js';
import { ErrorShape } from './wire-shared.js';

const own = {
  temper: z.object({
    digest: z.string().describe('sha256 of the checkpoint, or of the adapter'),
    adapter: z.boolean(),
    pairs: z.int().describe('low-rank pairs that are applied'),
    tensors: z.int(),
    status: z.enum(['approved', 'candidate', 'quarantined']),
    gate: z
      .object({
        status: z.enum(['passed', 'failed', 'absent', 'stale', 'damaged', 'revoked', 'overridden', 'off']),
        decision: z.enum(['PASS', 'FAIL', 'INCONCLUSIVE', 'ERROR']).nullable(),
        adapter: z.string().nullable().describe('sha256 of the adapter as the gate names it; null: a base'),
        lock: z.string().nullable().describe('sha256 of the lock that it was judged under'),
      })
      .optional()
      .describe('how it stands before the release gate; absent: the server does not ask'),
  }),
};
const ModelShape = z
  .object({
    id: z.string(),
    object: z.literal('model'),
    created: z.int(),
    owned_by: z.literal('temper'),
    ...own,
  })
  .meta({ id: 'Model' });
const ModelsShape = z.object({ object: z.literal('list'), data: z.array(ModelShape) }).meta({ id: 'Models' });

const AnthropicModelShape = z
  .object({
    type: z.literal('model'),
    id: z.string(),
    display_name: z.string(),
    created_at: z.iso.datetime(),
    capabilities: z.null(),
    lifecycle: z.literal('active'),
    deprecated_at: z.null(),
    retires_at: z.null(),
    line: z.null(),
    max_input_tokens: z.int(),
    max_tokens: z.int(),
    ...own,
  })
  .meta({ id: 'AnthropicModel' });
const AnthropicModelsShape = z
  .object({
    data: z.array(AnthropicModelShape),
    has_more: z.boolean(),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
  })
  .meta({ id: 'AnthropicModels' });

/** Which of both, the header `anthropic-version` says. */
export const ModelAnswerShape = z.union([ModelShape, AnthropicModelShape]).meta({ id: 'ModelAnswer' });
export const ModelsAnswerShape = z.union([ModelsShape, AnthropicModelsShape]).meta({ id: 'ModelsAnswer' });
export const ModelsErrorShape = z.union([ErrorShape, MessageErrorShape]).meta({ id: 'ModelsError' });

export const HealthShape = z.object({ status: z.literal('ok') }).meta({ id: 'Health' });
export const ReadyShape = z.object({ status: z.enum(['ready', 'draining']) }).meta({ id: 'Ready' });
