// Files of a PEFT folder, for those who need no more of it than their names.
export const CONFIG_FILE = 'adapter_config.json';
export const TENSOR_FILE = 'adapter_model.safetensors';
