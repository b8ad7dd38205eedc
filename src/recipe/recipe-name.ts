// What the run of a recipe is called.
import { basename } from 'node:path';

/** The name of its file, unless the run is told otherwise. */
export const recipeName = (file: string): string => basename(file).replace(/\.ya?ml$/i, '');
