// What deploy/ says of the server is so: its options, settings, paths, ports, metrics and times.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { createProgram } from '../../src/cli/main.js';
import { APIS } from '../../src/serve/apis.js';
import { readServeConfig } from '../../src/serve/config.js';
import { TIMEOUTS } from '../../src/serve/timeouts.js';
import { scriptedApp, scriptedEngine } from '../serve/scripted.js';
import { deploy, directives, names, only, read, seconds, unit, type Yaml, yaml } from './files.js';

const GUIDE = readFileSync(join(packageRoot, 'docs', 'guides', 'deployment.md'), 'utf8');
const own = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as {
  version: string;
  scripts: Record<string, string>;
};
const [stateful, gpu, compose, envoy] = [
  only('kubernetes/base/statefulset.yaml'),
  only('kubernetes/gpu/gpu.yaml'),
  only('docker/compose.yaml'),
  only('envoy/envoy.yaml'),
];
const pod = stateful.spec.template.spec,
  [container] = pod.containers;
const nginx = read('nginx/temper.conf'),
  dockerfile = read('docker/Dockerfile').replaceAll('\\\n', ' ');
const instruction = (name: string): readonly string[] =>
  [...dockerfile.matchAll(new RegExp(`^\\s*${name} +(.*)$`, 'gm'))].map((m) => m[1] ?? '');
const list = (text: string | undefined): string[] => JSON.parse(text ?? '[]') as string[];

/** Time that a request may take where it is stopped from outside, s, beside drainSeconds. */
const MARGIN = 10;
/** Each way to run it: its arguments, its settings, its port, and how long it may take to end, s. */
const WAYS = {
  systemd: {
    args: unit('systemd/temper.service', 'ExecStart')[0]?.split(' ').slice(1) ?? [],
    config: 'systemd/serve.yaml',
    grace: seconds(unit('systemd/temper.service', 'TimeoutStopSec')[0] ?? ''),
    written: ['/var/lib/temper', '/var/cache/temper'],
  },
  docker: {
    args: list(instruction('CMD').at(-1)),
    config: 'docker/serve.yaml',
    grace: seconds(compose.services.temper.stop_grace_period as string),
    written: ['/var/lib/temper', '/var/cache/temper'],
  },
  kubernetes: {
    args: container.args as string[],
    config: 'kubernetes/base/serve.yaml',
    grace: (pod.terminationGracePeriodSeconds as number) - Number(container.lifecycle.preStop.exec.command[1]),
    written: (container.volumeMounts as Yaml[]).filter((m) => m.readOnly !== true).map((m) => m.mountPath as string),
  },
} as const;
const GPU_ARGS: Readonly<Record<string, readonly string[]>> = {
  systemd: unit('systemd/gpu.conf', 'ExecStart').at(-1)?.split(' ').slice(1) ?? [],
  docker: compose.services['temper-gpu'].command as string[],
  kubernetes: gpu.spec.template.spec.containers[0].args as string[],
};

/** Options as the command line takes them. @throws what it refuses */
async function parsed(args: readonly string[]): Promise<Record<string, unknown>> {
  const all = await createProgram();
  const serve = all.commands.find((c) => c.name() === 'serve');
  let taken: Record<string, unknown> | undefined;
  serve?.action((options: Record<string, unknown>) => {
    taken = options;
  });
  await all.parseAsync([...args], { from: 'user' });
  if (!taken) throw new Error(`${args.join(' ')}: is no temper serve`);
  return taken;
}

describe.each(Object.entries(WAYS))('%s', (name, { args, config, grace, written }) => {
  const settings = readServeConfig(join(deploy, config));
  it('is run with options that there are', async () => {
    const options = await parsed(args);
    expect(options.config).toBe('/etc/temper/serve.yaml');
    expect(options.apiKeyFile).toMatch(/^(%d|\/run\/secrets|\/etc\/temper-keys)\//);
    const gpu = await parsed(GPU_ARGS[name] ?? []);
    expect(gpu).toEqual({ ...options, device: 'cuda' });
  });
  it('has time to drain', () => {
    expect(settings.drainSeconds).toBeGreaterThanOrEqual(30);
    expect(grace).toBeGreaterThanOrEqual((settings.drainSeconds ?? Number.NaN) + MARGIN);
    expect(settings.queueSeconds).toBeLessThan(settings.drainSeconds ?? 0); // who waits is answered, too
  });
  it('listens where it is looked for, and writes where it may', () => {
    expect(settings.port).toBe(8080);
    expect(settings.host).toBe(name === 'systemd' ? '127.0.0.1' : '0.0.0.0');
    expect(written).toContainEqual(expect.toSatisfy((w: string) => settings.state?.startsWith(`${w}/`) === true));
    expect(written).toContain('/var/cache/temper'); // TEMPER_CACHE
  });
});

describe('what is named is there', () => {
  it('paths of the server', async () => {
    const { app } = scriptedApp(scriptedEngine(() => []).engine);
    const probes = [container.startupProbe, container.readinessProbe, container.livenessProbe];
    const asked = [
      ...probes.map((p: Yaml) => p.httpGet.path as string),
      ...[...dockerfile.matchAll(/127\.0\.0\.1:\d+(\/\w+)/g)].map((m) => m[1] as string),
      only('prometheus/prometheus.yml').scrape_configs[0].metrics_path as string,
      only('prometheus/podmonitor.yaml').spec.podMetricsEndpoints[0].path as string,
      envoy.static_resources.clusters[0].health_checks[0].http_health_check.path as string,
    ];
    expect(asked).toHaveLength(7);
    for (const path of asked) expect((await app.request(path)).status, path).toBe(200);
    const routes = [...APIS.flatMap((api) => api.operations.map((o) => o.path)), '/metrics', '/admin', '/'];
    const proxied = [
      ...directives(nginx, 'location').filter((l) => l.startsWith('/')),
      ...(
        envoy.static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0]
          .routes as Yaml[]
      ).map((r) => (r.match.prefix ?? r.match.path) as string),
    ];
    expect(proxied).toHaveLength(8);
    for (const path of proxied) expect(routes, path).toContain(path);
  });
  it('metrics', async () => {
    const { app } = scriptedApp(scriptedEngine(() => []).engine);
    const text = await (await app.request('/metrics')).text();
    const known = new Set([...text.matchAll(/^# TYPE (\w+)/gm)].map((m) => m[1]));
    let used = 0;
    for (const name of names.filter((n) => /^(prometheus|grafana)|autoscaler/.test(n)))
      for (const [metric] of read(name).matchAll(/\btemper_\w+/g)) {
        expect(known, `${metric} of ${name}`).toContain(metric.replace(/_bucket$/, ''));
        used++;
      }
    expect(used).toBeGreaterThan(20);
  });
  it('variables of the environment', () => {
    const source = readdirSync(join(packageRoot, 'src'), { recursive: true, encoding: 'utf8' })
      .filter((f) => f.endsWith('.ts'))
      .map((f) => readFileSync(join(packageRoot, 'src', f), 'utf8'))
      .join('\n');
    const used = [...names.map(read), GUIDE].flatMap((text) => text.match(/\bTEMPER_[A-Z_]+\b/g) ?? []);
    expect(new Set(used)).toContain('TEMPER_CACHE');
    for (const variable of used) expect(source).toMatch(new RegExp(`env\\.${variable}\\b`));
  });
  it('the image has the files of the pages that a server reads as it starts', () => {
    const [, copied = ''] = /cp -r ([^\n]*) \/opt\/temper\//.exec(dockerfile) ?? [];
    const pages = ['serve/playground.ts', 'serve/review/console.ts'].flatMap((file) =>
      [...readFileSync(join(packageRoot, 'src', file), 'utf8').matchAll(/readPageFiles\('(\w+)'/g)].map(
        ([, name]) => name,
      ),
    );
    expect(pages).toEqual(['playground', 'review']);
    expect(copied.split(' ')).toEqual(expect.arrayContaining(pages));
  });
  it('what the image is made of', () => {
    for (const from of instruction('COPY').filter((c) => !c.startsWith('--from')))
      for (const source of from.split(' ').slice(0, -1))
        expect(existsSync(join(packageRoot, source)), source).toBe(true);
    for (const [, script] of dockerfile.matchAll(/npm run ([\w:]+)/g))
      expect(own.scripts).toHaveProperty([script ?? '']);
    for (const [, version] of `${dockerfile}${read('docker/compose.yaml')}`.matchAll(/VERSION[=:] ?(\d[\d.]*)/g))
      expect(version).toBe(own.version);
    const ignored = read('docker/Dockerfile.dockerignore').trim().split('\n');
    for (const kept of ['src', 'native', 'policies', 'scripts', 'package.json']) expect(ignored).not.toContain(kept);
  });
  it('files that the guide names', () => {
    const named = [...GUIDE.matchAll(/\bdeploy\/[\w./-]*\w/g)].map(([f]) => f);
    expect(named.length).toBeGreaterThan(8);
    for (const file of named) expect(existsSync(join(packageRoot, file)), file).toBe(true);
  });
});

describe('nobody has more rights than he needs', () => {
  it('in a container', () => {
    const user = instruction('USER').at(-1);
    expect(user).toBe('1000:1000');
    const { runAsUser, runAsGroup, runAsNonRoot } = pod.securityContext;
    expect(`${runAsUser}:${runAsGroup}`).toBe(user);
    expect(runAsNonRoot).toBe(true);
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
    for (const service of Object.values(compose.services) as Yaml[])
      expect(service).toMatchObject({ user, read_only: true, cap_drop: ['ALL'], init: true });
    expect(compose.services.temper.ports).toEqual(['127.0.0.1:8080:8080']);
  });
  it('and no key stands in a file', () => {
    for (const name of names) expect(read(name), name).not.toMatch(/^\s*-?\s*(key|token|password): *["']?[\w-]{16}/m);
    expect(pod.volumes.find((v: Yaml) => v.name === 'keys').secret.secretName).toBe('temper-keys');
  });
});

describe('Kubernetes', () => {
  let all: readonly Yaml[];
  beforeAll(() => {
    const { resources } = only('kubernetes/base/kustomization.yaml');
    all = (resources as string[]).flatMap((file) => yaml(`kubernetes/base/${file}`));
  });
  const byKind = (kind: string): Yaml[] => all.filter((o) => o.kind === kind);
  it('names what there is', () => {
    const labels = stateful.spec.template.metadata.labels;
    const [disruption] = byKind('PodDisruptionBudget'),
      [autoscaler] = byKind('HorizontalPodAutoscaler'),
      services = byKind('Service');
    expect(all.map((o) => o.kind).sort()).toEqual([
      'HorizontalPodAutoscaler',
      'PersistentVolumeClaim',
      'PodDisruptionBudget',
      'Service',
      'Service',
      'StatefulSet',
    ]);
    for (const selector of [
      stateful.spec.selector.matchLabels,
      disruption.spec.selector.matchLabels,
      ...services.map((s) => s.spec.selector),
      only('prometheus/podmonitor.yaml').spec.selector.matchLabels,
      ...pod.topologySpreadConstraints.map((t: Yaml) => t.labelSelector.matchLabels),
    ])
      expect(selector).toEqual(labels);
    expect(autoscaler.spec.scaleTargetRef).toEqual({
      apiVersion: 'apps/v1',
      kind: 'StatefulSet',
      name: stateful.metadata.name,
    });
    expect(autoscaler.spec.minReplicas).toBe(stateful.spec.replicas);
    const metric = autoscaler.spec.metrics[0].pods.metric.name as string;
    expect(only('prometheus/adapter.yaml').rules.custom[0].name.as).toBe(metric);
    expect(metric).toBe('temper_requests_waiting');
    const headless = services.find((s) => s.spec.clusterIP === 'None');
    expect(headless.metadata.name).toBe(stateful.spec.serviceName);
    const { address, port_value } =
      envoy.static_resources.clusters[0].load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address;
    expect([address, port_value]).toEqual([headless.metadata.name, headless.spec.ports[0].port]);
    expect(byKind('PersistentVolumeClaim')[0].metadata.name).toBe(
      pod.volumes.find((v: Yaml) => v.name === 'weights').persistentVolumeClaim.claimName,
    );
    const config = only('kubernetes/base/kustomization.yaml').configMapGenerator[0];
    expect(pod.volumes.find((v: Yaml) => v.name === 'config').configMap.name).toBe(config.name);
    expect(config.files).toEqual(['serve.yaml']);
  });
  it('has a volume for each mount, and the settings lie in them', () => {
    const volumes = new Set(
      [...pod.volumes, ...stateful.spec.volumeClaimTemplates.map((t: Yaml) => t.metadata)].map(
        (v: Yaml) => v.name as string,
      ),
    );
    for (const { name } of container.volumeMounts as Yaml[]) expect(volumes).toContain(name);
    const { model } = readServeConfig(join(deploy, 'kubernetes/base/serve.yaml'));
    expect(container.volumeMounts.find((m: Yaml) => m.name === 'weights').mountPath).toBe('/models');
    expect(model).toMatch(/^\/models\//);
    expect(readServeConfig(join(deploy, 'docker/serve.yaml')).model).toMatch(/^\/models\//);
  });
});

describe('in front of replicas', () => {
  const manager = envoy.static_resources.listeners[0].filter_chains[0].filters[0].typed_config,
    routes = manager.route_config.virtual_hosts[0].routes as Yaml[];
  const one = (name: string): string => {
    const [value, ...more] = new Set(directives(nginx, name));
    expect(more, name).toEqual([]);
    return value ?? '';
  };
  it('nginx and Envoy go by the same header, and by the key', () => {
    const header = /\$http_(x_temper_prefix)\b/.exec(nginx)?.[1]?.replaceAll('_', '-');
    const route = routes.at(-1);
    expect(route.route.hash_policy.map((p: Yaml) => p.header?.header_name)).toEqual([
      header,
      'authorization',
      'x-api-key',
      undefined,
    ]);
    expect(GUIDE.toLowerCase()).toContain(header);
    // Kept answers go by the key alone.
    const kept = routes.find((r) => r.match.prefix === '/v1/responses');
    expect(kept.route.hash_policy.map((p: Yaml) => p.header?.header_name)).not.toContain(header);
  });
  it('bounds are those of the server', async () => {
    const { maxBodyBytes } = await parsed(['serve', '--model', 'x']);
    expect(Number(one('client_max_body_size').replace('m', '')) * 2 ** 20).toBe(maxBodyBytes);
    expect(manager.route_config.virtual_hosts[0].per_request_buffer_limit_bytes).toBe(maxBodyBytes);
    expect([one('client_header_timeout'), one('client_body_timeout'), one('send_timeout')].map(seconds)).toEqual(
      [TIMEOUTS.head, TIMEOUTS.request, TIMEOUTS.answer].map((ms) => ms / 1000),
    );
    expect([manager.request_headers_timeout, manager.request_timeout].map(seconds)).toEqual(
      [TIMEOUTS.head, TIMEOUTS.request].map((ms) => ms / 1000),
    );
    // A whole answer is waited for as long as it may wait and be written.
    for (const idle of [one('proxy_read_timeout'), manager.stream_idle_timeout as string])
      expect(seconds(idle)).toBeGreaterThanOrEqual(1200);
    for (const r of routes.filter((r) => r.route)) expect(r.route.timeout).toBe('0s');
    expect(one('proxy_buffering')).toBe('off');
  });
  it('connections end there before they end here', () => {
    const { keepAliveTimeout } = createServer();
    for (const idle of [
      one('keepalive_timeout'),
      envoy.static_resources.clusters[0].typed_extension_protocol_options[
        'envoy.extensions.upstreams.http.v3.HttpProtocolOptions'
      ].common_http_protocol_options.idle_timeout as string,
    ])
      expect(seconds(idle) * 1000).toBeLessThan(keepAliveTimeout);
  });
  it('ports are one', () => {
    const ports = [
      ...directives(nginx, 'server')
        .map((s) => /:(\d+)/.exec(s)?.[1])
        .filter((p) => p !== undefined),
      ...(only('prometheus/prometheus.yml').scrape_configs[0].static_configs[0].targets as string[]).map(
        (t) => t.split(':')[1],
      ),
      ...instruction('EXPOSE'),
      ...[...dockerfile.matchAll(/127\.0\.0\.1:(\d+)/g)].map((m) => m[1]),
      String(container.ports[0].containerPort),
    ];
    expect(ports.length).toBeGreaterThanOrEqual(9);
    expect(new Set(ports)).toEqual(new Set(['8080']));
    for (const probe of [container.startupProbe, container.readinessProbe, container.livenessProbe])
      expect(probe.httpGet.port).toBe(container.ports[0].name);
  });
});
