// Trains a low-rank pair on the experts of models/nano with TensorFlow.js: node examples/tfjs-lora.mjs [FOLDER]
// The pair learns to do to the experts' outputs what another, hidden one does. tf.train.adam follows the gradients,
// which Temper's ops compute on the released MXFP4 bytes. With FOLDER the adapter is saved there, in PEFT's form.
// Any tf fits: '@tensorflow/tfjs-node' or '@tensorflow/tfjs-node-gpu' in place of the one below.
import * as tf from '@tensorflow/tfjs';
import { embedded } from 'temper-oss';
import { createBridge } from 'temper-oss/tfjs';

await tf.setBackend('cpu');
const temper = createBridge(tf);
const model = temper.open(embedded('models/nano'));
const layer = model.layer(1);
const { hidden_size: D } = model.config;

const hidden = (seed) => {
  const { A, B, scale } = layer.pair('down', { rank: 2, seed });
  return { A, B: tf.randomNormal(B.shape, 0, 0.1, 'float32', seed), scale };
};
const x = tf.randomNormal([64, D], 0, 1, 'float32', 7);
const wanted = tf.tidy(() => layer.moe(x, { down: hidden(3) }));

const start = layer.pair('down', { rank: 4, seed: 1 });
const down = { A: tf.variable(start.A), B: tf.variable(start.B), scale: start.scale };
const adam = tf.train.adam(0.01);
const losses = [];
const before = tf.memory().numTensors;
for (let step = 1; step <= 60; step++) {
  const loss = adam.minimize(() => tf.mean(tf.square(tf.sub(layer.moe(x, { down }), wanted))), true);
  losses.push(loss.dataSync()[0]);
  loss.dispose();
  if (step === 1 || step % 20 === 0) console.log(`step ${step}  loss ${losses.at(-1).toExponential(3)}`);
}
// Adam keeps two moments of each variable; nothing else stays.
console.log(`tensors more than before: ${tf.memory().numTensors - before}`);
console.log(`loss ${(losses[0] / losses.at(-1)).toFixed(1)} times lower`);

const [folder] = process.argv.slice(2);
if (folder) {
  await model.saveAdapter(folder, { 1: { down } }, 'made with tfjs');
  console.log(`saved: temper generate --model models/nano --adapter ${folder}`);
}
model.close();
