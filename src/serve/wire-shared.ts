// What answers of several APIs have in common, as /openapi.json tells it; tests hold what is sent to it.
import { z } from 'zod';

const outcome = z.enum(['allow', 'block', 'unjudged']);
/** This server's own member of an answer: what was decided over it, where there are policies. */
export const ScreeningShape = z
  .object({
    mode: z.literal('shadow').optional().describe('what is not allowed leaves all the same'),
    outcome,
    verdicts: z.array(
      z.object({
        policy: z.string(),
        channel: z.string(),
        outcome,
        rule: z.string().nullable(),
        cause: z.string().nullable(),
      }),
    ),
    receipt: z.string().optional().describe('of the last verdict in the log'),
  })
  .meta({ id: 'Screening', description: 'What policies decided, where the server has some.' });
export const own = { temper: ScreeningShape.optional() };
/** Of several answers. */
export const ownOfMany = {
  temper: z.union([ScreeningShape, z.object({ choices: z.array(ScreeningShape.nullable()) })]).optional(),
};

export const UsageShape = z
  .object({
    prompt_tokens: z.int(),
    completion_tokens: z.int(),
    total_tokens: z.int(),
    prompt_tokens_details: z.object({ cached_tokens: z.int() }),
    completion_tokens_details: z.object({
      reasoning_tokens: z.int(),
      accepted_prediction_tokens: z.int().optional().describe('tokens that were guessed, and came'),
      rejected_prediction_tokens: z.int().optional(),
    }),
  })
  .meta({ id: 'Usage' });

export const ErrorShape = z
  .object({
    error: z.object({
      message: z.string(),
      type: z.enum([
        'invalid_request_error',
        'authentication_error',
        'permission_error',
        'rate_limit_error',
        'server_error',
      ]),
      param: z.string().nullable().describe('the field that it is about'),
      code: z.string().describe('stable, as model_not_found'),
    }),
  })
  .meta({ id: 'Error' });

export const finish = z.enum(['stop', 'length', 'tool_calls', 'content_filter']);
const likely = { token: z.string(), logprob: z.number(), bytes: z.array(z.int()) };
/** A token of an answer with its log-probability. */
export const TokenShape = z.object({ ...likely, top_logprobs: z.array(z.object(likely)) }).meta({ id: 'TokenLogprob' });
