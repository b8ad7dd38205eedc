// What /v1/models and the routes of probes answer.
import { z } from 'zod';

export const ModelShape = z
  .object({
    id: z.string(),
    object: z.literal('model'),
    created: z.int(),
    owned_by: z.literal('temper'),
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
  })
  .meta({ id: 'Model' });
export const ModelsShape = z.object({ object: z.literal('list'), data: z.array(ModelShape) }).meta({ id: 'Models' });

export const HealthShape = z.object({ status: z.literal('ok') }).meta({ id: 'Health' });
export const ReadyShape = z.object({ status: z.enum(['ready', 'draining']) }).meta({ id: 'Ready' });
