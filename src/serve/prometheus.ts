// What is used of prom-client, a file each: all of it takes ten times as long to load, with Node's own metrics,
// OpenTelemetry and a client that pushes.
import { createRequire } from 'node:module';
import type * as Prometheus from 'prom-client';

const part = createRequire(import.meta.url);
export const Registry = part('prom-client/lib/registry.js') as typeof Prometheus.Registry;
export const Counter = part('prom-client/lib/counter.js') as typeof Prometheus.Counter;
export const Gauge = part('prom-client/lib/gauge.js') as typeof Prometheus.Gauge;
export const Histogram = part('prom-client/lib/histogram.js') as typeof Prometheus.Histogram;
