// Where a recipe computes.
import { parseBytes } from '../base/units.js';
import { HOST } from '../native/backends.js';
import { type Device, loadOnDevice } from '../native/device.js';
import type { Recipe } from './schema.js';

/** Most bytes a recipe takes of its device; 0: all there is. */
export const memoryLimitOf = (recipe: Recipe): number =>
  recipe.memoryLimit === undefined ? 0 : parseBytes(recipe.memoryLimit);

/** The recipe on the CPU, where a limit of a device's memory means nothing: for when that memory was too little. */
export const onHost = ({ memoryLimit: _, ...recipe }: Recipe): Recipe => ({ ...recipe, device: HOST });

/**
 * Opens the recipe's device, or another in its place, and loads onto it.
 * @param load must leave nothing behind when it throws
 * @throws {NativeError} what is missing for a device that is named
 */
export const onRecipeDevice = <T>(recipe: Recipe, load: (device: Device) => T, name = recipe.device): T =>
  loadOnDevice(name, memoryLimitOf(recipe), load);
