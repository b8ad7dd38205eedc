// Where a recipe computes.
import { parseBytes } from '../base/units.js';
import { openDevice } from '../native/device.js';
import type { Place } from '../native/tensor.js';
import type { Recipe } from './schema.js';

/** Opens the recipe's device. @throws {NativeError} what is missing for it */
export const recipePlace = (recipe: Recipe): Place =>
  openDevice(
    recipe.device === 'auto' ? 'cpu' : recipe.device,
    recipe.memoryLimit === undefined ? 0 : parseBytes(recipe.memoryLimit),
  );
