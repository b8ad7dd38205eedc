// An object that is made when something of it is first asked for.

/**
 * `make` runs once, at the first property that is read; from then on its properties are own ones of the result, so that
 * later reads cost what they always cost.
 */
export function lazy<T extends object>(make: () => T): T {
  const object: object = Object.create(
    new Proxy(
      {},
      {
        get(_, name) {
          Object.setPrototypeOf(object, Object.prototype);
          try {
            Object.assign(object, make());
          } catch (e) {
            // Asked again, it fails again and says why.
            Object.setPrototypeOf(object, first);
            throw e;
          }
          return Reflect.get(object, name);
        },
      },
    ),
  );
  const first: object = Object.getPrototypeOf(object);
  return object as T;
}
