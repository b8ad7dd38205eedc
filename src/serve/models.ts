// GET /v1/models: base and adapters by the names that requests give.
import { describeModel } from './admin.js';
import type { Api } from './api.js';
import type { Served, ServedModel } from './served.js';

const described = (served: Served, m: ServedModel): Record<string, unknown> => ({
  id: m.id,
  object: 'model',
  created: served.created,
  owned_by: 'temper',
  temper: describeModel(m),
});

export const models: Api = {
  shapes: () => import('./wire-models.js'),
  operations: [
    { method: 'get', path: '/v1/models', summary: 'Base and adapters, with their digests.', answer: 'ModelsShape' },
    { method: 'get', path: '/v1/models/{model}', summary: 'One of them.', answer: 'ModelShape' },
  ],
  register(app, serviceOf) {
    app.get('/v1/models', (c) => {
      const { served } = serviceOf(c);
      return c.json({ object: 'list', data: served.models.map((m) => described(served, m)) });
    });
    app.get('/v1/models/:model{.+}', (c) => {
      const { served } = serviceOf(c);
      return c.json(described(served, served.find(c.req.param('model'))));
    });
  },
};
