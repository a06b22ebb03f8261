// An alerter. It warns about services with fewer instances than its configuration asks for; put your own policy into
// `evaluate`. What is exported are the interfaces of the world `alerting` in wit/plugin.wit, in JavaScript's spelling.

const DEFAULTS = { instances_min: 2 };

// The configuration, from {{name}}.toml beside {{name}}.wasm.
let settings = DEFAULTS;

export const lifecycle = {
  metadata: () => 'name = "{{name}}"\nversion = "0.1.0"\n',

  // Called before anything below, with {} when nothing is configured. Throwing a list of issues refuses it.
  configure(json) {
    const read = { ...DEFAULTS, ...JSON.parse(json) };
    const issues = Object.keys(read)
      .filter((key) => !(key in DEFAULTS))
      .map((key) => ({ path: `/${key}`, message: 'There is no such setting.' }));
    if (!Number.isInteger(read.instances_min)) {
      issues.push({ path: '/instances_min', message: 'This must be a whole number.' });
    }
    if (issues.length > 0) throw issues;
    settings = read;
  },

  // Throwing a text keeps the plugin out.
  selfTest() {},
};

export const alerter = {
  // What the host has to bring along: the position in this list is a sample's `want`.
  wants: () => [{ series: 'meshwright_service_instances_available', aggregate: 'last', windowS: 60 }],

  // Returns all that holds now, each time; the host remembers what it has already told.
  evaluate(nowMs, samples, events) {
    const min = settings.instances_min;
    return samples
      .filter(({ value }) => value < min)
      .map(({ labels, value }) => ({
        rule: 'few-instances',
        severity: 'warning',
        labels,
        title: 'a service has few instances',
        detail: `${value} available, ${min} wanted`,
        value,
        // A lower bound, since `resolveAt` is higher.
        threshold: min - 1,
        forS: 0,
        resolveAt: min,
      }));
  },
};
