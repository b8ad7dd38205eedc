// GET /v1/models: base and adapters by the names that requests give.
import type { Api } from './api.js';
import type { Served, ServedModel } from './served.js';

const described = (served: Served, m: ServedModel): Record<string, unknown> => ({
  id: m.id,
  object: 'model',
  created: served.created,
  owned_by: 'temper',
  temper: { digest: m.digest, adapter: m.adapter !== null, pairs: m.pairs },
});

export const models: Api = {
  operations: [
    { method: 'get', path: '/v1/models', summary: 'Base and adapters, with their digests.' },
    { method: 'get', path: '/v1/models/{model}', summary: 'One of them.' },
  ],
  register(app, { served }) {
    app.get('/v1/models', (c) => c.json({ object: 'list', data: served.models.map((m) => described(served, m)) }));
    app.get('/v1/models/:model{.+}', (c) => c.json(described(served, served.find(c.req.param('model')))));
  },
};
