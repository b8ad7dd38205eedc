// Recorded decode steps on the emulated device.
import { afterAll } from 'vitest';
import './emulated.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { openDevice } from '../../src/native/device.js';
import { recordedSteps } from '../infer/recorded-steps.js';
import { tinyCheckpoint } from '../infer/tiny.js';

const { dir } = await tinyCheckpoint();
openDevice('cuda');
const device = openCheckpoint(dir, { place: 'cuda' }),
  hostEmbedding = openCheckpoint(dir, { place: 'cuda', embed: 'cpu' });
afterAll(() => {
  device.close();
  hostEmbedding.close();
});
recordedSteps({ device, 'embedding table on the host': hostEmbedding });
